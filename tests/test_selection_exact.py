"""Selections row by row: what is scored and kept, and which rows each baseline takes.

Shape suffixes: N rows.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from diet_ray.config import BoundaryConfig, CandidateConfig, QuotaRule
from diet_ray.distillation import baselines as baselines_module
from diet_ray.distillation.baselines import el2n_rows, kmeans_rows, random_rows
from diet_ray.distillation.boundary import allocate_quotas, boundary_rows, el2n_histogram
from diet_ray.distillation.el2n import BINS, El2nHistogram, el2n, el2n_bin
from diet_ray.distillation.row_choice import Rows, row_hash
from diet_ray.distillation.scored_rows import Columns, EmbeddedRows, LocalScorer, PartScorer, ScoredPart, Span
from diet_ray.log.batches import EncodedRows, joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.memory_schema import group_name
from diet_ray.models.examples import predict
from diet_ray.storage import Folder
from diet_ray.training.candidate_setup import candidate_recommender
from diet_ray.training.learning import learn_block
from diet_ray.training.recommender import Recommender
from tests.distinct_blocks import SMALL, write_distinct_blocks


class Prepared(NamedTuple):
    log: PreparedLog
    recommender: Recommender
    scorer: LocalScorer
    el2n_N: np.ndarray
    group_N: np.ndarray


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    log = write_distinct_blocks(tmp_path_factory.mktemp("selection"))
    config = CandidateConfig(**SMALL.reference.model_dump(exclude={"ensemble"}))
    recommender = candidate_recommender(config, 0, log, SMALL.dim, SMALL.training)
    learn_block(recommender, log, log.block(1), SMALL.training, 0)
    learn_block(recommender, log, log.block(2), SMALL.training, 0)
    rows = joined(list(log.chunks(log.block(2))))
    # In one piece, as a scorer computes it, so that the scores are the same to the bit.
    el2n_N = scored(recommender, rows)
    group_N = rows.label_NT[:, 0].astype(int) + 2 * rows.label_NT[:, 1]
    scorer = LocalScorer(PartScorer(recommender, log, log.block(2)))
    return Prepared(log, recommender, scorer, el2n_N, group_N)


def scored(recommender: Recommender, rows: EncodedRows) -> np.ndarray:
    """EL2N of rows (eq. 6)."""
    logit_NT = predict(recommender.dense, recommender.tables(torch.tensor(rows.id_NF).long()))
    distance_NT = torch.sigmoid(logit_NT) - torch.tensor(rows.label_NT)
    return torch.linalg.vector_norm(distance_NT, dim=1).numpy()


def numbers(chosen: Columns) -> list[int]:
    row_N: list[int] = Rows.joined(chosen).row_N.tolist()
    return row_N


def embedded(scorer: LocalScorer, row_N: list[int]) -> EmbeddedRows:
    rows = Rows(np.array(row_N), np.zeros(len(row_N), int))
    return EmbeddedRows.joined(scorer.embed(rows.split([span.first for span in scorer.spans])))


def smallest(row_N: NDArray[np.int64], quota: int, seed: int) -> list[int]:
    """The rows with the smallest hashes."""
    hash_N = dict(zip(row_N.tolist(), row_hash(seed, row_N).tolist(), strict=True))
    return sorted(hash_N, key=hash_N.__getitem__)[:quota]


def in_band(prepared: Prepared, row_N: NDArray[np.int64], ranks: list[int], seed: int) -> list[int]:
    """Of each bin as many of the rows as ranks of their sort lie in it, by the smallest hashes."""
    bin_N = el2n_bin(prepared.el2n_N, 2)
    ranked = row_N[np.argsort(prepared.el2n_N[row_N], kind="stable")]
    wanted, rows = bin_N[ranked[ranks]], list[int]()
    for number in np.unique(wanted):
        rows += smallest(row_N[bin_N[row_N] == number], int((wanted == number).sum()), seed)
    return rows


def band(count: int, quota: int, quantile: float, span: float) -> list[int]:
    """Ranks at the middles of `quota` equal pieces of a window around the quantile."""
    window = max(quota, round(span * count))
    start = min(max(round(quantile * (count - 1) - (window - 1) / 2), 0), count - window)
    return [start + int((piece + 0.5) * window / quota) for piece in range(quota)]


@pytest.mark.parametrize("quota", ["equal", "sqrt", "proportional"])
@pytest.mark.parametrize(("quantile", "span"), [(0.9, 0.0), (0.5, 0.4), (0.1, 0.7), (0.9, 1.0), (0.0, 0.0)])
def test_boundary_rows_are_those_of_an_exact_sort(
    prepared: Prepared, quota: QuotaRule, quantile: float, span: float
) -> None:
    config = BoundaryConfig(quota=quota, quantile=quantile, span=span)
    counts = {group: int((prepared.group_N == group).sum()) for group in range(4)}
    expected: list[int] = []
    for group, rows in allocate_quotas(counts, 31, config.quota).items():
        of_group = np.flatnonzero(prepared.group_N == group)
        expected += in_band(prepared, of_group, band(counts[group], rows, quantile, span), seed=2)
    scorer = prepared.scorer
    assert numbers(boundary_rows(scorer, el2n_histogram(scorer), 31, config, 2)) == sorted(expected)


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("budget", [1, 20, 140, 500])
def test_el2n_rows_are_those_of_an_exact_sort_of_the_block(
    prepared: Prepared, quantile: float, budget: int
) -> None:
    expected = in_band(prepared, np.arange(140), band(140, min(budget, 140), quantile, 0.0), seed=0)
    assert numbers(el2n_rows(prepared.scorer, budget, quantile)) == sorted(expected)


def test_random_rows_are_those_with_the_smallest_hashes(prepared: Prepared) -> None:
    expected = smallest(np.arange(140), 30, seed=4)
    assert numbers(random_rows(prepared.scorer, 30, 4)) == sorted(expected)
    assert numbers(random_rows(prepared.scorer, 999, 4)) == list(range(140))


@pytest.mark.parametrize(("budget", "clusters"), [(12, 5), (3, 64), (70, 64), (100, 64)])
def test_kmeans_rows_are_the_closest_of_each_cluster_of_a_sample(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, budget: int, clusters: int
) -> None:
    if clusters != 64:
        monkeypatch.setattr(baselines_module, "CLUSTERS", clusters)
    rows = numbers(kmeans_rows(prepared.scorer, budget, 4))
    sample_N = np.sort(smallest(np.arange(140), 4 * budget, seed=4))
    flat_NX = embedded(prepared.scorer, list(range(140))).emb_NFD[sample_N].reshape(len(sample_N), 12)
    model = MiniBatchKMeans(min(clusters, budget), n_init=1, random_state=4).fit(flat_NX)
    members = {c: np.flatnonzero(model.labels_ == c) for c in np.unique(model.labels_).tolist()}
    quotas = allocate_quotas({c: len(rows) for c, rows in members.items()}, budget, "proportional")
    expected: list[int] = []
    for cluster, quota in quotas.items():
        to_centre = np.linalg.norm(flat_NX[members[cluster]] - model.cluster_centers_[cluster], axis=1)
        expected += sample_N[members[cluster][np.argsort(to_centre)[:quota]]].tolist()
    assert rows == sorted(expected) and len(rows) == budget


def test_quotas_are_rounded_down_and_the_rest_goes_to_the_heaviest() -> None:
    assert allocate_quotas({0: 50, 1: 30, 2: 20}, 9, "proportional") == {0: 5, 1: 2, 2: 2}
    assert allocate_quotas({0: 10, 1: 10, 2: 10}, 5, "equal") == {0: 2, 1: 2, 2: 1}
    assert allocate_quotas({5: 10, 1: 10, 3: 10}, 4, "equal") == {5: 1, 1: 2, 3: 1}
    assert allocate_quotas({0: 1, 1: 100, 2: 3}, 60, "equal") == {0: 1, 1: 56, 2: 3}
    assert allocate_quotas({0: 2, 1: 3}, 100, "sqrt") == {0: 2, 1: 3}
    assert allocate_quotas({0: 16, 1: 4, 2: 1}, 7, "sqrt") == {0: 4, 1: 2, 2: 1}
    assert allocate_quotas({0: 4, 1: 4}, 2, "equal") == {0: 1, 1: 1}


def test_quotas_of_ranks_by_hand() -> None:
    """Two tasks: scores lie in [0, sqrt(2)], so a bin is sqrt(2) / 65,536 wide."""
    width = 2**0.5 / BINS
    score_N: NDArray[np.float32] = np.array([n * width for n in (0.5, 1.5, 1.6, 3.5, 7.5)], np.float32)
    assert el2n_bin(score_N, 2).tolist() == [0, 1, 1, 3, 7]
    assert el2n_bin(np.array([-1.0, 0.0, 2**0.5, 9.0], np.float32), 2).tolist() == [0, 0, BINS - 1, BINS - 1]
    histogram = El2nHistogram.of(score_N, np.array([1, 1, 1, 1, 1]), 2)
    assert histogram.group_counts() == {1: 5} and len(histogram.count_B[1]) == BINS
    assert histogram.count_B[1][[0, 1, 3, 7]].tolist() == [1, 2, 1, 1]
    for ranks, expected in (
        ([0], {0: 1}),
        ([1], {1: 1}),
        ([2], {1: 1}),
        ([1, 3], {1: 1, 3: 1}),
        ([1, 2, 4], {1: 2, 7: 1}),
        ([0, 1, 2, 3, 4], {0: 1, 1: 2, 3: 1, 7: 1}),
    ):
        quota_B = histogram.quotas(1, np.array(ranks))
        assert {int(b): int(quota_B[b]) for b in np.flatnonzero(quota_B)} == expected
    other = El2nHistogram.of(score_N, np.array([0, 7, 4, 4, 7]), 3)
    assert other.group_counts() == {0: 1, 4: 2, 7: 2}
    both = histogram.merged(other).merged(histogram)
    assert both.group_counts() == {0: 1, 1: 10, 4: 2, 7: 2}
    assert both.ungrouped().group_counts() == {0: 15}
    assert histogram.group_counts() == {1: 5}  # as it was
    mean, deviation = histogram.moments()
    assert mean == pytest.approx(score_N.astype(float).mean())
    assert deviation == pytest.approx(score_N.astype(float).std())
    assert both.moments() == pytest.approx((mean, deviation))


def test_el2n_of_several_rows_by_hand() -> None:
    logit_NT = torch.tensor([[0.0, 0.0], [100.0, -100.0], [100.0, 100.0]])
    label_NT = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(el2n(logit_NT, label_NT), torch.tensor([0.5**0.5, 0.0, 2**0.5]))


def test_a_label_group_is_named_by_its_tasks() -> None:
    tasks = ("click", "like", "buy")
    assert [group_name(group, tasks) for group in (0, 1, 2, 4, 5, 7)] == [
        "none",
        "click",
        "like",
        "buy",
        "click+buy",
        "click+like+buy",
    ]


def test_parts_are_scored_by_their_row_numbers_within_the_block(prepared: Prepared) -> None:
    """A part may begin within a file and end within another."""
    for span in (Span(0, 140), Span(30, 60), Span(46, 140)):
        part = prepared.scorer.parts.score(span)
        assert part.row_numbers().tolist() == list(range(span.first, span.stop))
        np.testing.assert_allclose(part.el2n_N, prepared.el2n_N[span.first : span.stop], rtol=1e-6)
        assert part.group_N.tolist() == prepared.group_N[span.first : span.stop].tolist()
    whole = el2n_histogram(prepared.scorer)
    expected = El2nHistogram.of(prepared.el2n_N, prepared.group_N, 2)
    assert whole.group_counts() == expected.group_counts()
    assert all(np.array_equal(whole.count_B[group], expected.count_B[group]) for group in range(4))
    scores = prepared.scorer.scores()
    assert scores is prepared.scorer.scores()  # computed once


def test_rows_are_embedded_with_logits_and_labels_wherever_they_lie(prepared: Prepared) -> None:
    rows = joined(list(prepared.log.chunks(prepared.log.block(2))))
    for row_N in ([0, 45, 46, 139], [0, 3], [50, 60], [45]):
        found = embedded(prepared.scorer, row_N)
        emb_NFD = prepared.recommender.tables(torch.tensor(rows.id_NF[row_N]).long()).detach()
        assert np.array_equal(found.emb_NFD, emb_NFD.numpy())
        assert np.array_equal(found.label_NT, rows.label_NT[row_N])
        logit_NT = predict(prepared.recommender.dense, emb_NFD).numpy()
        np.testing.assert_allclose(found.logit_NT, logit_NT, rtol=1e-5, atol=1e-6)
    chosen = Rows(np.array([2, 50]), np.array([7, 9]))
    assert prepared.scorer.parts.embed(Span(0, 140), chosen).cell_N.tolist() == [7, 9]
    nothing = prepared.scorer.parts.embed(Span(46, 140), chosen.take(np.array([], int)))
    assert nothing.emb_NFD.shape == (0, 3, 4) and nothing.logit_NT.shape == (0, 2)


def test_scores_are_kept_in_a_folder_and_read_from_there(prepared: Prepared, tmp_path: Path) -> None:
    folder, span = Folder.at(str(tmp_path)), Span(46, 140)

    def scorer(recommender: Recommender | None) -> PartScorer:
        model = recommender or object()
        return PartScorer(model, prepared.log, prepared.log.block(2), folder)  # type: ignore[arg-type]

    scored = scorer(prepared.recommender).score(span)
    assert [path.name for path in tmp_path.iterdir()] == ["rows-46-140.parquet"]
    table = folder.read_parquet("rows-46-140.parquet")
    assert table.column_names == ["row", "el2n", "label_group"]
    assert table["row"].to_pylist() == list(range(46, 140))
    # Without a model there is nothing to score with.
    assert scorer(None).score(span).table().equals(scored.table())
    with pytest.raises(AttributeError):
        scorer(None).score(Span(0, 140))


def test_tables_of_scores_read_back() -> None:
    part = ScoredPart(5, np.array([0.5, 0.25], np.float32), np.array([3, 0]))
    again = ScoredPart.of(part.table())
    assert (again.row_numbers().tolist(), again.group_N.tolist()) == ([5, 6], [3, 0])
    assert again.el2n_N.tolist() == [0.5, 0.25] and again.el2n_N.dtype == np.float32

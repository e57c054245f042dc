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
from diet_ray.distillation.boundary import allocate_quotas, boundary_rows
from diet_ray.distillation.el2n import (
    BINS,
    El2nHistogram,
    RankedBins,
    el2n,
    el2n_bin,
    group_name,
    rows_in_bins,
)
from diet_ray.distillation.scored_rows import LocalScorer, PartScorer, ScoredRows
from diet_ray.log.batches import EncodedRows, joined
from diet_ray.log.dataset import PreparedLog
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
    # In the pieces that a scorer reads, so that the scores are the same to the bit.
    pieces = [scored(recommender, rows.take(piece)) for piece in (slice(0, 46), slice(46, 140))]
    el2n_N = np.concatenate(pieces)
    group_N = rows.label_NT[:, 0].astype(int) + 2 * rows.label_NT[:, 1]
    scorer = LocalScorer(PartScorer(recommender, log, log.block(2)))
    return Prepared(log, recommender, scorer, el2n_N, group_N)


def scored(recommender: Recommender, rows: EncodedRows) -> np.ndarray:
    """EL2N of rows (eq. 6)."""
    logit_NT = predict(recommender.dense, recommender.tables(torch.tensor(rows.id_NF).long()))
    distance_NT = torch.sigmoid(logit_NT) - torch.tensor(rows.label_NT)
    return torch.linalg.vector_norm(distance_NT, dim=1).numpy()


def ranked(prepared: Prepared, row_N: np.ndarray) -> list[int]:
    """The rows by ascending EL2N; ties go by row number."""
    return sorted(row_N.tolist(), key=lambda row: (prepared.el2n_N[row], row))


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
        order = ranked(prepared, np.flatnonzero(prepared.group_N == group))
        expected += [order[rank] for rank in band(counts[group], rows, quantile, span)]
    assert boundary_rows(prepared.scorer, 31, config).tolist() == sorted(expected)


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("budget", [1, 20, 140, 500])
def test_el2n_rows_are_those_of_an_exact_sort_of_the_block(
    prepared: Prepared, quantile: float, budget: int
) -> None:
    order = ranked(prepared, np.arange(140))
    expected = sorted(order[rank] for rank in band(140, min(budget, 140), quantile, 0.0))
    assert el2n_rows(prepared.scorer, budget, quantile).tolist() == expected


def test_random_rows_are_the_draw_in_order(prepared: Prepared) -> None:
    drawn = np.random.default_rng(4).choice(140, 30, replace=False)
    assert random_rows(prepared.scorer, 30, np.random.default_rng(4)).tolist() == sorted(drawn.tolist())
    assert random_rows(prepared.scorer, 999, np.random.default_rng(4)).tolist() == list(range(140))


@pytest.mark.parametrize(("budget", "clusters"), [(12, 5), (3, 64), (70, 64), (100, 64)])
def test_kmeans_rows_are_the_closest_of_each_cluster_of_a_sample(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, budget: int, clusters: int
) -> None:
    if clusters != 64:
        monkeypatch.setattr(baselines_module, "CLUSTERS", clusters)
    rows = kmeans_rows(prepared.scorer, budget, np.random.default_rng(4))
    draw = np.random.default_rng(4)
    sample_N = np.sort(draw.choice(140, min(4 * budget, 140), replace=False))
    flat_NX = prepared.scorer.embed(np.arange(140)).emb_NFD[sample_N].reshape(len(sample_N), 12)
    seed = int(draw.integers(2**31))
    model = MiniBatchKMeans(min(clusters, budget), n_init=1, random_state=seed).fit(flat_NX)
    members = {c: np.flatnonzero(model.labels_ == c) for c in np.unique(model.labels_).tolist()}
    quotas = allocate_quotas({c: len(rows) for c, rows in members.items()}, budget, "proportional")
    expected: list[int] = []
    for cluster, quota in quotas.items():
        to_centre = np.linalg.norm(flat_NX[members[cluster]] - model.cluster_centers_[cluster], axis=1)
        expected += sample_N[members[cluster][np.argsort(to_centre)[:quota]]].tolist()
    assert rows.tolist() == sorted(expected) and len(rows) == budget


def test_quotas_are_rounded_down_and_the_rest_goes_to_the_heaviest() -> None:
    assert allocate_quotas({0: 50, 1: 30, 2: 20}, 9, "proportional") == {0: 5, 1: 2, 2: 2}
    assert allocate_quotas({0: 10, 1: 10, 2: 10}, 5, "equal") == {0: 2, 1: 2, 2: 1}
    assert allocate_quotas({5: 10, 1: 10, 3: 10}, 4, "equal") == {5: 1, 1: 2, 3: 1}
    assert allocate_quotas({0: 1, 1: 100, 2: 3}, 60, "equal") == {0: 1, 1: 56, 2: 3}
    assert allocate_quotas({0: 2, 1: 3}, 100, "sqrt") == {0: 2, 1: 3}
    assert allocate_quotas({0: 16, 1: 4, 2: 1}, 7, "sqrt") == {0: 4, 1: 2, 2: 1}
    assert allocate_quotas({0: 4, 1: 4}, 2, "equal") == {0: 1, 1: 1}


def test_bins_of_ranks_by_hand() -> None:
    """Two tasks: scores lie in [0, sqrt(2)], so a bin is sqrt(2) / 65,536 wide."""
    width = 2**0.5 / BINS
    score_N: NDArray[np.float32] = np.array([n * width for n in (0.5, 1.5, 1.6, 3.5, 7.5)], np.float32)
    group_N = np.array([1, 1, 1, 1, 1])
    assert el2n_bin(score_N, 2).tolist() == [0, 1, 1, 3, 7]
    assert el2n_bin(np.array([-1.0, 0.0, 2**0.5, 9.0], np.float32), 2).tolist() == [0, 0, BINS - 1, BINS - 1]
    histogram = El2nHistogram.of(score_N, group_N, 2)
    assert histogram.count_GB.shape == (4, BINS) and histogram.group_counts() == {1: 5}
    assert histogram.count_GB[1, [0, 1, 3, 7]].tolist() == [1, 2, 1, 1]
    for ranks, expected in (
        ([0], (0, 0, 0)),
        ([1], (1, 1, 1)),
        ([2], (1, 1, 1)),
        ([1, 3], (1, 3, 1)),
        ([3, 4], (3, 7, 3)),
        ([0, 4], (0, 7, 0)),
    ):
        assert histogram.bins(1, np.array(ranks)) == expected
    assert rows_in_bins(score_N, group_N, 2, {1: RankedBins(1, 3, 0)}).tolist() == [1, 2, 3]
    assert rows_in_bins(score_N, group_N, 2, {0: RankedBins(0, 9, 0)}).tolist() == []
    both = rows_in_bins(
        score_N, np.array([0, 1, 0, 1, 0]), 2, {0: RankedBins(1, 7, 0), 1: RankedBins(3, 3, 0)}
    )
    assert both.tolist() == [2, 3, 4]
    twice = histogram.merged(histogram)
    assert twice.group_counts() == {1: 10} and twice.tasks == 2
    of_three = El2nHistogram.of(score_N, np.array([0, 7, 4, 4, 7]), 3)
    assert of_three.count_GB.shape == (8, BINS) and of_three.group_counts() == {0: 1, 4: 2, 7: 2}


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
    parts = prepared.scorer.parts
    for part, (first, stop) in enumerate(((0, 46), (46, 140))):
        all_bins = {group: RankedBins(0, BINS - 1, 0) for group in range(4)}
        scored = parts.in_bins(part, all_bins, grouped=True)
        assert scored.row_N.tolist() == list(range(first, stop))
        np.testing.assert_array_equal(scored.el2n_N, prepared.el2n_N[first:stop])
        assert scored.group_N.tolist() == prepared.group_N[first:stop].tolist()
        plain = parts.in_bins(part, {0: RankedBins(0, BINS - 1, 0)}, grouped=False)
        assert plain.row_N.tolist() == list(range(first, stop)) and not plain.group_N.any()
        of_two = parts.in_bins(part, {2: RankedBins(0, BINS - 1, 0)}, grouped=True)
        assert of_two.row_N.tolist() == [r for r in range(first, stop) if prepared.group_N[r] == 2]
    whole = prepared.scorer.histogram()
    expected = El2nHistogram.of(prepared.el2n_N, prepared.group_N, 2)
    assert np.array_equal(whole.count_GB, expected.count_GB) and whole.tasks == 2


def test_rows_are_embedded_with_logits_and_labels_wherever_they_lie(prepared: Prepared) -> None:
    rows = joined(list(prepared.log.chunks(prepared.log.block(2))))
    for row_N in ([0, 45, 46, 139], [0, 3], [50, 60], [45]):
        embedded = prepared.scorer.embed(np.array(row_N))
        emb_NFD = prepared.recommender.tables(torch.tensor(rows.id_NF[row_N]).long()).detach()
        assert np.array_equal(embedded.emb_NFD, emb_NFD.numpy())
        assert np.array_equal(embedded.label_NT, rows.label_NT[row_N])
        logit_NT = predict(prepared.recommender.dense, emb_NFD).numpy()
        np.testing.assert_allclose(embedded.logit_NT, logit_NT, rtol=1e-5, atol=1e-6)
        distance_NT = 1 / (1 + np.exp(-embedded.logit_NT)) - embedded.label_NT
        np.testing.assert_allclose(embedded.el2n(), np.linalg.norm(distance_NT, axis=1), rtol=1e-5)
    nothing = prepared.scorer.parts.embed(1, np.array([], int))
    assert nothing.emb_NFD.shape == (0, 3, 4) and nothing.logit_NT.shape == (0, 2)


def test_scores_are_kept_in_a_folder_and_read_from_there(prepared: Prepared, tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path))
    every = {group: RankedBins(0, BINS - 1, 0) for group in range(4)}

    def scorer(recommender: Recommender | None) -> PartScorer:
        model = recommender or object()
        return PartScorer(model, prepared.log, prepared.log.block(2), folder)  # type: ignore[arg-type]

    first = scorer(prepared.recommender)
    scored = first.in_bins(1, every, grouped=True)
    assert [path.name for path in tmp_path.iterdir()] == ["part-1.parquet"]
    table = folder.read_parquet("part-1.parquet")
    assert table.column_names == ["row", "el2n", "label_group"]
    assert table["row"].to_pylist() == list(range(46, 140))
    # Without a model there is nothing to score with.
    again = scorer(None).in_bins(1, every, grouped=True)
    assert again.table().equals(scored.table())
    with pytest.raises(AttributeError):
        scorer(None).in_bins(0, every, grouped=True)
    # Nor are they read again from the folder by the one that has them.
    (tmp_path / "part-1.parquet").unlink()
    assert np.array_equal(first.in_bins(1, every, grouped=True).el2n_N, scored.el2n_N)


def test_tables_of_scores_read_back() -> None:
    rows = ScoredRows(np.array([1, 5]), np.array([0.5, 0.25], np.float32), np.array([3, 0]))
    again = ScoredRows.of(rows.table())
    assert (again.row_N.tolist(), again.group_N.tolist()) == ([1, 5], [3, 0])
    assert again.el2n_N.tolist() == [0.5, 0.25] and again.el2n_N.dtype == np.float32

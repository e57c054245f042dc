"""Which rows of a block are chosen: against a plain sort of the whole block."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from diet_ray.config import BoundaryConfig, TrainingConfig
from diet_ray.distillation.baselines import el2n_rows, kmeans_rows, random_rows
from diet_ray.distillation.boundary import allocate_quotas, band_ranks, boundary_rows, el2n_histogram
from diet_ray.distillation.el2n import BINS, el2n_bin
from diet_ray.distillation.row_choice import Rows
from diet_ray.distillation.scored_rows import (
    BATCH,
    PART_BYTES,
    Columns,
    EmbeddedRows,
    LocalScorer,
    PartScorer,
    ScoredPart,
    Span,
    spans,
)
from diet_ray.errors import ConfigError
from diet_ray.log.batches import EncodedRows, joined
from diet_ray.log.dataset import Block, Part, PreparedLog
from diet_ray.models.examples import predict
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.learning import learn_block, new_recommender
from diet_ray.training.recommender import Recommender

DIM = 8
TRAINING = TrainingConfig(batch_size=128)


def learner(log: PreparedLog) -> Recommender:
    model = build_model(
        ModelConfig(name="finalnet"), fields=len(log.fields), dim=DIM, tasks=len(log.tasks), seed=0
    )
    return new_recommender(model, log, DIM, TRAINING)


@pytest.fixture(scope="module")
def scorer(drift_log: str) -> LocalScorer:
    """The first block under a checkpoint that has learned it."""
    log = PreparedLog.open(drift_log)
    reference, block = learner(log), log.history[0]
    learn_block(reference, log, block, TRAINING, seed=0)
    return LocalScorer(PartScorer(reference, log, block))


def embedded(scorer: LocalScorer, row_N: np.ndarray | list[int]) -> EmbeddedRows:
    """Rows by number."""
    rows = Rows(np.asarray(row_N), np.zeros(len(row_N), int))
    return EmbeddedRows.joined(scorer.embed(rows.split([span.first for span in scorer.spans])))


def numbers(chosen: Columns) -> np.ndarray:
    return Rows.joined(chosen).row_N


def boundary(scorer: LocalScorer, budget: int, config: BoundaryConfig, seed: int = 0) -> np.ndarray:
    return numbers(boundary_rows(scorer, el2n_histogram(scorer), budget, config, seed))


@pytest.fixture(scope="module")
def scored(scorer: LocalScorer) -> ScoredPart:
    """EL2N and label group of every row, straight from logits and labels."""
    found = embedded(scorer, np.arange(scorer.block.rows))
    chance_NT = 1 / (1 + np.exp(-found.logit_NT.astype(np.float64)))
    group_N = found.label_NT.astype(int) @ (2 ** np.arange(found.label_NT.shape[1]))
    distance_N = np.linalg.norm(chance_NT - found.label_NT, axis=1)
    return ScoredPart(0, distance_N.astype(np.float32), group_N)


@pytest.mark.parametrize("span", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("quota", ["equal", "sqrt", "proportional"])
def test_boundary_rows_fill_the_band_of_each_label_group(
    scorer: LocalScorer, scored: ScoredPart, quota: str, span: float
) -> None:
    rows = boundary(scorer, 120, BoundaryConfig(quota=quota, span=span))
    counts = {int(g): int(n) for g, n in zip(*np.unique(scored.group_N, return_counts=True), strict=True)}
    quotas = allocate_quotas(counts, 120, quota)
    assert len(rows) == 120 and (np.diff(rows) > 0).all()
    for group, count in counts.items():
        of_group = np.sort(scored.el2n_N[scored.group_N == group])
        mine = np.sort(scored.el2n_N[rows][scored.group_N[rows] == group])
        ranks = band_ranks(count, quotas[group], 0.9, span)
        assert len(mine) == quotas[group]
        # Row by row as difficult as the row of this rank: within a bin, and rounding at its edges.
        np.testing.assert_allclose(mine, of_group[ranks], atol=2 * 3**0.5 / BINS)


def test_el2n_baseline_ignores_label_groups(scorer: LocalScorer, scored: ScoredPart) -> None:
    rows = numbers(el2n_rows(scorer, 100, quantile=0.9))
    ranks = band_ranks(len(scored.el2n_N), 100, 0.9, span=0)
    mine, block = np.sort(scored.el2n_N[rows]), np.sort(scored.el2n_N)
    np.testing.assert_allclose(mine, block[ranks], atol=2 * 3**0.5 / BINS)


def test_targets_carry_the_labels_of_the_log_or_of_the_checkpoint(scorer: LocalScorer) -> None:
    rows = embedded(scorer, np.arange(50))
    real, taught = rows.targets("real"), rows.targets("teacher")
    assert torch.equal(real.emb_NFD, taught.emb_NFD)
    assert set(real.label_NT.flatten().tolist()) == {0, 1}
    assert torch.equal(taught.label_NT, predict(scorer.parts.recommender.dense, taught.emb_NFD).sigmoid())


def test_random_rows_are_distinct_and_seeded(scorer: LocalScorer) -> None:
    rows = [numbers(random_rows(scorer, 200, seed)) for seed in (0, 0, 1)]
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])
    assert len(np.unique(rows[0])) == 200 and (np.diff(rows[0]) > 0).all()


def test_kmeans_rows_lie_closer_to_their_neighbours_than_random_rows(scorer: LocalScorer) -> None:
    rows = numbers(kmeans_rows(scorer, 100, 0))
    assert len(np.unique(rows)) == 100 and (np.diff(rows) > 0).all()

    def to_nearest(chosen: np.ndarray) -> float:
        """Mean distance of a row of the block to the nearest chosen one."""
        every = torch.tensor(embedded(scorer, np.arange(scorer.block.rows)).emb_NFD).flatten(1)
        return torch.cdist(every, every[chosen]).min(1).values.mean().item()

    random = np.mean([to_nearest(numbers(random_rows(scorer, 100, seed))) for seed in range(3)])
    assert to_nearest(rows) < random


def refiled(block: Block, places: list[int]) -> Block:
    """The same rows in other files; only the cuts move, the files stay as they are."""
    edges = [0, *places, block.rows]
    stamp = block.parts[0].stamp
    return block._replace(parts=tuple(Part(stamp, b - a, a) for a, b in pairwise(edges)))


@pytest.mark.parametrize("part_rows", [None, 7, 100, 1999])
@pytest.mark.parametrize("places", [[], [100, 101, 900]])
def test_the_choice_does_not_depend_on_how_the_block_is_cut(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch, places: list[int], part_rows: int | None
) -> None:
    """Neither into files nor into parts."""
    whole, log = scorer.parts, scorer.parts.log
    everything = joined(list(log.chunks(scorer.block)))

    def chunks(self: PreparedLog, block: Block, start: int, stop: int) -> Iterator[EncodedRows]:
        """As the reader, file by file."""
        for part in block.parts:
            piece = slice(max(start, part.first), min(stop, part.first + part.rows))
            if piece.start < piece.stop:
                yield everything.take(piece)

    monkeypatch.setattr(PreparedLog, "chunks", chunks)
    parts = PartScorer(whole.recommender, log, refiled(scorer.block, places))
    in_parts = LocalScorer(parts, part_rows=part_rows)
    assert len(in_parts.spans) == (-(-scorer.block.rows // part_rows) if part_rows else 1)
    for choose in (
        lambda s: boundary(s, 60, BoundaryConfig()),
        lambda s: boundary(s, 60, BoundaryConfig(span=0, quota="equal"), 3),
        lambda s: numbers(el2n_rows(s, 60, 0.9)),
        lambda s: numbers(random_rows(s, 60, 5)),
    ):
        assert np.array_equal(choose(scorer), choose(in_parts))


def test_another_seed_chooses_other_rows_of_the_same_difficulty(
    scorer: LocalScorer, scored: ScoredPart
) -> None:
    rows = [boundary(scorer, 60, BoundaryConfig(), seed) for seed in (0, 1)]
    assert not np.array_equal(*rows)
    bins = [np.sort(el2n_bin(scored.el2n_N[row_N], 3)) for row_N in rows]
    assert np.abs(bins[0] - bins[1]).max() <= 1


def test_parts_are_of_a_batch_at_least_and_grow_to_their_bytes(scorer: LocalScorer) -> None:
    def cut(rows: int, fields: int = 12, tasks: int = 3) -> list[Span]:
        return spans(scorer.block._replace(rows=rows), fields, tasks)

    assert cut(300) == [Span(0, 300)]
    assert cut(BATCH + 1) == [Span(0, BATCH), Span(BATCH, BATCH + 1)]
    assert len(cut(50_000_000)) == 64
    large = cut(10**9)
    assert large[-1].stop == 10**9 and all(a.stop == b.first for a, b in pairwise(large))
    assert {span.stop - span.first for span in large[:-1]} == {PART_BYTES // 59}
    assert np.array_equal(Span(3, 6).row_numbers(), [3, 4, 5])


def test_more_rows_than_the_block_has_gives_the_whole_block(scorer: LocalScorer) -> None:
    rows = scorer.block.rows
    for chosen in (
        boundary(scorer, 10 * rows, BoundaryConfig()),
        numbers(el2n_rows(scorer, 10 * rows, 0.9)),
        numbers(random_rows(scorer, 10 * rows, 0)),
    ):
        assert np.array_equal(chosen, np.arange(rows))


def test_fewer_rows_than_label_groups_is_refused(scorer: LocalScorer) -> None:
    with pytest.raises(ConfigError, match="ratio too small: 2 rows for 4 label groups"):
        boundary(scorer, 2, BoundaryConfig())


def test_collected_rows_become_memory_with_teacher_logits(scorer: LocalScorer) -> None:
    found = embedded(scorer, [3, 4, 50])
    memory = found.as_memory(stage=2)
    assert memory.stage_N.tolist() == [2, 2, 2]
    assert torch.equal(memory.logit_NT, torch.tensor(found.logit_NT))
    assert memory.group_N.tolist() == (found.label_NT @ [1, 2, 4]).tolist()
    assert memory.influence_N.isnan().all()

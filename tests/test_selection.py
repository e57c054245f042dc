"""Which rows of a block are chosen: against a plain sort of the whole block."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from diet_ray.config import BoundaryConfig, TrainingConfig
from diet_ray.distillation.baselines import el2n_rows, kmeans_rows, random_rows
from diet_ray.distillation.boundary import allocate_quotas, band_ranks, boundary_rows
from diet_ray.distillation.scored_rows import LocalScorer, PartScorer, ScoredRows, rows_by_part
from diet_ray.errors import ConfigError
from diet_ray.log.batches import joined
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


@pytest.fixture(scope="module")
def scored(scorer: LocalScorer) -> ScoredRows:
    """EL2N and label group of every row, straight from logits and labels."""
    found = scorer.embed(np.arange(scorer.block.rows))
    chance_NT = 1 / (1 + np.exp(-found.logit_NT.astype(np.float64)))
    group_N = found.label_NT.astype(int) @ (2 ** np.arange(found.label_NT.shape[1]))
    distance_N = np.linalg.norm(chance_NT - found.label_NT, axis=1)
    return ScoredRows(np.arange(len(group_N)), distance_N.astype(np.float32), group_N)


def ranked(scored: ScoredRows, rows: np.ndarray) -> np.ndarray:
    """Positions of `rows` among all rows by ascending EL2N."""
    return np.argsort(np.argsort(scored.el2n_N, kind="stable"))[rows]


@pytest.mark.parametrize("span", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("quota", ["equal", "sqrt", "proportional"])
def test_boundary_rows_fill_the_band_of_each_label_group(
    scorer: LocalScorer, scored: ScoredRows, quota: str, span: float
) -> None:
    rows = boundary_rows(scorer, 120, BoundaryConfig(quota=quota, span=span))
    counts = {int(g): int(n) for g, n in zip(*np.unique(scored.group_N, return_counts=True), strict=True)}
    quotas = allocate_quotas(counts, 120, quota)
    assert len(rows) == 120 and (np.diff(rows) > 0).all()
    for group, count in counts.items():
        of_group = ScoredRows(*(part[scored.group_N == group] for part in scored))
        mine = np.searchsorted(of_group.row_N, rows[scored.group_N[rows] == group])
        ranks = band_ranks(count, quotas[group], 0.9, span)
        # Scores in float32 and float64 may swap neighbours at the edge of the band.
        assert len(mine) == quotas[group]
        assert (np.abs(np.sort(ranked(of_group, mine)) - ranks) <= 2).all()


def test_el2n_baseline_ignores_label_groups(scorer: LocalScorer, scored: ScoredRows) -> None:
    rows = el2n_rows(scorer, 100, quantile=0.9)
    ranks = np.sort(ranked(scored, rows))
    assert (np.abs(ranks - band_ranks(len(scored.row_N), 100, 0.9, span=0)) <= 2).all()


def test_targets_carry_the_labels_of_the_log_or_of_the_checkpoint(scorer: LocalScorer) -> None:
    rows = scorer.embed(np.arange(50))
    real, taught = rows.targets("real"), rows.targets("teacher")
    assert torch.equal(real.emb_NFD, taught.emb_NFD)
    assert set(real.label_NT.flatten().tolist()) == {0, 1}
    assert torch.equal(taught.label_NT, predict(scorer.parts.recommender.dense, taught.emb_NFD).sigmoid())


def test_random_rows_are_distinct_and_seeded(scorer: LocalScorer) -> None:
    rows = [random_rows(scorer, 200, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])
    assert len(np.unique(rows[0])) == 200 and (np.diff(rows[0]) > 0).all()


def test_kmeans_rows_lie_closer_to_their_neighbours_than_random_rows(scorer: LocalScorer) -> None:
    draw = np.random.default_rng(0)
    rows = kmeans_rows(scorer, 100, draw)
    assert len(np.unique(rows)) == 100 and (np.diff(rows) > 0).all()

    def to_nearest(chosen: np.ndarray) -> float:
        """Mean distance of a row of the block to the nearest chosen one."""
        every = torch.tensor(scorer.embed(np.arange(scorer.block.rows)).emb_NFD).flatten(1)
        return torch.cdist(every, every[chosen]).min(1).values.mean().item()

    random = np.mean([to_nearest(random_rows(scorer, 100, draw)) for _ in range(3)])
    assert to_nearest(rows) < random


def cut(block: Block, places: list[int]) -> Block:
    """The same rows in other parts; only the cuts move, the files stay as they are."""
    edges = [0, *places, block.rows]
    stamp = block.parts[0].stamp
    return block._replace(parts=tuple(Part(stamp, b - a, a) for a, b in pairwise(edges)))


def test_rows_are_split_at_the_edges_of_parts(scorer: LocalScorer) -> None:
    parts = cut(scorer.block, [10, 20]).parts
    assert [p.tolist() for p in rows_by_part(parts, np.array([0, 9, 10, 25]))] == [[0, 9], [10], [25]]


def test_the_choice_does_not_depend_on_how_the_block_is_cut(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, log = scorer.parts, scorer.parts.log
    # The reader goes by files; a part of a block stands for a file here.
    everything = joined(list(log.chunks(scorer.block)))
    assert everything.rows == scorer.block.rows
    monkeypatch.setattr(
        PreparedLog, "chunks", lambda self, block, start, stop: iter([everything.take(slice(start, stop))])
    )
    for places in ([], [100, 101, 900]):
        in_parts = LocalScorer(PartScorer(whole.recommender, log, cut(scorer.block, places)))
        assert len(in_parts.block.parts) == 1 + len(places)
        for choose in (
            lambda s: boundary_rows(s, 60, BoundaryConfig()),
            lambda s: el2n_rows(s, 60, 0.9),
        ):
            assert np.array_equal(choose(scorer), choose(in_parts))


def test_more_rows_than_the_block_has_gives_the_whole_block(scorer: LocalScorer) -> None:
    rows = scorer.block.rows
    for chosen in (
        boundary_rows(scorer, 10 * rows, BoundaryConfig()),
        el2n_rows(scorer, 10 * rows, 0.9),
        random_rows(scorer, 10 * rows, np.random.default_rng(0)),
    ):
        assert np.array_equal(chosen, np.arange(rows))


def test_fewer_rows_than_label_groups_is_refused(scorer: LocalScorer) -> None:
    with pytest.raises(ConfigError, match="ratio too small: 2 rows for 4 label groups"):
        boundary_rows(scorer, 2, BoundaryConfig())


def test_collected_rows_become_memory_with_teacher_logits(scorer: LocalScorer) -> None:
    rows = np.array([3, 4, 50])
    found = scorer.embed(rows)
    memory = found.as_memory(stage=2)
    assert memory.stage_N.tolist() == [2, 2, 2]
    assert torch.equal(memory.logit_NT, torch.tensor(found.logit_NT))
    assert memory.group_N.tolist() == (found.label_NT @ [1, 2, 4]).tolist()
    assert memory.influence_N.isnan().all()

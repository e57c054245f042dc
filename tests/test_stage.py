"""A stage without Ray: boundary rows, fusion with the memory before, optimisation."""

import pytest
import torch

from diet_ray.config import BoundaryConfig, RunConfig
from diet_ray.distillation.memory import Memory
from diet_ray.distillation.selection import LocalScorer, PartScorer, boundary_rows, random_rows
from diet_ray.distillation.stage import budget, composition, new_reference, next_memory
from diet_ray.log.dataset import PreparedLog
from diet_ray.seeding import derived_seed, numpy_generator
from diet_ray.training.checkpoint import restore_weights, to_bytes
from diet_ray.training.learning import learn_block, new_learner
from diet_ray.training.recommender import Recommender
from tests.tiny_run import TINY


def untrained(log: PreparedLog, config: RunConfig) -> Recommender:
    return new_learner(new_reference(log, config, "reference"), log, config.dim, config.training)


def checkpoints(log: PreparedLog, config: RunConfig) -> list[Recommender]:
    """The reference after each historical block."""
    learner = untrained(log, config)
    kept = []
    for block in log.history:
        learn_block(learner, log, block, config.training, derived_seed(config.seed, "reference"))
        copy = untrained(log, config)
        restore_weights(copy, to_bytes(learner))
        kept.append(copy)
    return kept


def memories(log: PreparedLog, config: RunConfig) -> list[Memory]:
    """The memory after each historical block."""
    reference = checkpoints(log, config)
    found: list[Memory] = []
    for stage, block in enumerate(log.history, start=1):
        rows = budget(config, sum(b.rows for b in log.history[:stage]))
        scorer = LocalScorer(PartScorer(reference[stage - 1], log, block))
        new = config.method.boundary.new_rows(rows, found[-1].rows if found else 0)
        device, pool_draw = reference[stage - 1].device, numpy_generator(config.seed, "pool", stage)
        chosen = scorer.collect(boundary_rows(scorer, new, config.method.boundary))
        pool = scorer.collect(random_rows(scorer, config.pool_rows, pool_draw))
        memory = next_memory(
            stage,
            log,
            config,
            rows=rows,
            boundary=chosen.as_memory(stage).to(device),
            old=found[-1] if found else None,
            real=pool.targets(config.method.outer.target_labels).to(device),
            reference=reference[stage - 1],
            previous=reference[stage - 2] if stage > 1 else None,
        )
        found.append(memory)
    return found


@pytest.fixture(scope="module")
def three_stages(drift_log: str) -> list[Memory]:
    return memories(PreparedLog.open(drift_log), TINY)


def test_each_memory_holds_its_budget_and_the_share_of_new_rows(
    drift_log: str, three_stages: list[Memory]
) -> None:
    log, share = PreparedLog.open(drift_log), TINY.method.boundary.new_share
    for stage, memory in enumerate(three_stages, start=1):
        rows = round(0.05 * sum(b.rows for b in log.history[:stage]))
        assert memory.rows == rows
        expected = rows if stage == 1 else max(rows - three_stages[stage - 2].rows, round(share * rows))
        assert int((memory.stage_N == stage).sum()) == expected


def test_kept_rows_carry_their_weight_and_new_rows_none(three_stages: list[Memory]) -> None:
    last = three_stages[-1]
    new_N = last.stage_N == 3
    assert last.influence_N[new_N].isnan().all()
    assert last.influence_N[~new_N].isfinite().all()


def test_the_same_seed_gives_the_same_memory_to_the_bit(drift_log: str, three_stages: list[Memory]) -> None:
    again = memories(PreparedLog.open(drift_log), TINY)[-1]
    other = memories(PreparedLog.open(drift_log), TINY.model_copy(update={"seed": 1}))[-1]
    assert torch.equal(again.emb_NFD, three_stages[-1].emb_NFD)
    assert torch.equal(again.logit_NT, three_stages[-1].logit_NT)
    assert not torch.equal(other.emb_NFD, three_stages[-1].emb_NFD)


def test_without_fusion_a_memory_is_of_its_block_alone(drift_log: str) -> None:
    method = TINY.method.model_copy(update={"boundary": BoundaryConfig(fusion=False)})
    last = memories(PreparedLog.open(drift_log), TINY.model_copy(update={"method": method}))[-1]
    assert set(last.stage_N.tolist()) == {3}


def test_composition_adds_up(three_stages: list[Memory]) -> None:
    found = composition(three_stages[2], three_stages[1])
    assert sum(found["rows_by_stage"].values()) == found["rows"] == three_stages[2].rows
    assert sum(found["rows_by_label_group"].values()) == found["rows"]
    assert found["rows_before"] == three_stages[1].rows

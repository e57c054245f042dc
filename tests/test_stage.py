"""A distillation without Ray: budgets, fusion, determinism, and what the records say."""

from pathlib import Path

import pytest
import torch

import diet_ray
from diet_ray.config import BoundaryConfig, RunConfig
from diet_ray.distillation.memory import Memory
from diet_ray.distillation.memory_update import new_reference
from diet_ray.log.dataset import PreparedLog
from diet_ray.runs.run import Run
from diet_ray.runs.state import RunState
from diet_ray.training.learning import new_recommender
from diet_ray.training.recommender import Recommender
from tests.tiny_run import TINY


def untrained(log: PreparedLog, config: RunConfig) -> Recommender:
    return new_recommender(new_reference(log, config, "reference"), log, config.dim, config.training)


def memories(log: str, run: Path, config: RunConfig) -> list[Memory]:
    """The memory after each historical block, distilled in this process."""
    done = diet_ray.distill(log, str(run), config, probe_seeds=0)
    state = RunState(PreparedLog.open(log), done.folder, config)
    stored = [state.memory(stage) for stage in range(1, done.stage + 1)]
    return [memory for memory in stored if memory is not None]


@pytest.fixture(scope="module")
def three_stages(drift_log: str, run_dir: str) -> list[Memory]:
    return memories(drift_log, Path(run_dir), TINY)


def test_each_memory_has_its_budget_and_the_share_of_new_rows(
    drift_log: str, three_stages: list[Memory]
) -> None:
    log, share = PreparedLog.open(drift_log), TINY.method.boundary.new_share
    for stage, memory in enumerate(three_stages, start=1):
        rows = round(0.05 * sum(b.rows for b in log.history[:stage]))
        assert memory.rows == rows
        expected = rows if stage == 1 else max(rows - three_stages[stage - 2].rows, round(share * rows))
        assert int((memory.stage_N == stage).sum()) == expected


def test_kept_rows_have_their_weight_and_new_rows_none(three_stages: list[Memory]) -> None:
    last = three_stages[-1]
    new_N = last.stage_N == 3
    assert last.influence_N[new_N].isnan().all()
    assert last.influence_N[~new_N].isfinite().all()


def test_the_same_seed_gives_the_same_memory_to_the_bit(
    drift_log: str, three_stages: list[Memory], tmp_path: Path
) -> None:
    again = memories(drift_log, tmp_path / "again", TINY)[-1]
    other = memories(drift_log, tmp_path / "other", TINY.model_copy(update={"seed": 1}))[-1]
    assert torch.equal(again.emb_NFD, three_stages[-1].emb_NFD)
    assert torch.equal(again.logit_NT, three_stages[-1].logit_NT)
    assert not torch.equal(other.emb_NFD, three_stages[-1].emb_NFD)


def test_without_fusion_a_memory_is_of_its_block_alone(drift_log: str, tmp_path: Path) -> None:
    method = TINY.method.model_copy(update={"boundary": BoundaryConfig(fusion=False)})
    last = memories(drift_log, tmp_path / "run", TINY.model_copy(update={"method": method}))[-1]
    assert set(last.stage_N.tolist()) == {3}


def test_an_interrupted_run_resumes_to_the_same_memory(
    drift_log: str, three_stages: list[Memory], tmp_path: Path
) -> None:
    class InterruptError(Exception):
        pass

    def interrupt(message: str) -> None:
        if message.startswith("stage 2"):
            raise InterruptError

    run = str(tmp_path / "run")
    with pytest.raises(InterruptError):
        diet_ray.distill(drift_log, run, TINY, report=interrupt)
    assert Run.read(run).stage == 2
    resumed = memories(drift_log, tmp_path / "run", TINY)[-1]
    assert torch.equal(resumed.emb_NFD, three_stages[-1].emb_NFD)


def test_the_records_say_what_the_memories_are(run_dir: str, three_stages: list[Memory]) -> None:
    records = Run.read(run_dir).records
    for record, memory in zip(records, three_stages, strict=True):
        metrics = record.metrics.memory
        assert metrics.rows == memory.rows == sum(metrics.rows_by_stage.values())
        assert metrics.rows_by_stage == dict(zip(*counted(memory.stage_N), strict=True))
        assert metrics.rows_by_label_group == dict(zip(*counted(memory.group_N), strict=True))
        assert len(metrics.outer_loss) == TINY.method.outer.iterations
    assert [record.metrics.memory.rows_before for record in records] == [
        None,
        three_stages[0].rows,
        three_stages[1].rows,
    ]


def counted(value_N: torch.Tensor) -> tuple[list[int], list[int]]:
    values, counts = value_N.unique(return_counts=True)
    return values.tolist(), counts.tolist()

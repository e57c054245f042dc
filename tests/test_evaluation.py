"""One cell of the comparison, by every method, without Ray."""

from pathlib import Path

import pytest
import torch

import diet_ray
from diet_ray import layout
from diet_ray.config import CandidateConfig, TrainingConfig
from diet_ray.distillation.memory_update import new_reference
from diet_ray.errors import ConfigError
from diet_ray.evaluation.cell import CellResult, Setting, run_cell
from diet_ray.evaluation.evaluator import Evaluator
from diet_ray.evaluation.methods import METHODS, REDUCED, Method
from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples
from diet_ray.runs.state import RunState
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.embedding import embed_rows
from diet_ray.training.learning import learn_block, new_recommender
from tests.stored_checkpoint import stored
from tests.tiny_run import FIT, TINY


@pytest.fixture(scope="module")
def checkpoint(drift_log: str) -> StoredCheckpoint:
    log = PreparedLog.open(drift_log)
    reference = new_recommender(new_reference(log, TINY, "reference"), log, TINY.dim, TINY.training)
    for block in log.history:
        learn_block(reference, log, block, TINY.training, 0)
    return stored(reference)


def cell(
    log: PreparedLog,
    method: Method,
    checkpoint: StoredCheckpoint | None,
    seed: int = 0,
    training: TrainingConfig = TINY.training,
) -> CellResult:
    draw = torch.Generator().manual_seed(5)
    shape = (100, len(log.fields), TINY.dim)
    reduced = Examples(torch.randn(shape, generator=draw) / 10, torch.rand(100, 3, generator=draw))
    return run_cell(
        method,
        CandidateConfig(name="finalnet"),
        seed,
        Setting(log, TINY.dim, training, FIT.model_copy(update={"rehearsal_weight": 1.0})),
        checkpoint,
        reduced if method in REDUCED else None,
    )[1]


def rehearsed(rows: int, batch: int) -> int:
    """Rows rehearsed beside `rows` rows."""
    whole, rest = divmod(rows, batch)
    return whole * round(FIT.rehearsal * batch) + round(FIT.rehearsal * rest)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_what_the_protocol_says(
    drift_log: str, checkpoint: StoredCheckpoint, method: Method
) -> None:
    log = PreparedLog.open(drift_log)
    found = cell(log, method, checkpoint)
    history, subsequent = sum(b.rows for b in log.history), log.blocks["subsequent"].rows
    reduced = len(found.epochs) * 100 + rehearsed(subsequent, TINY.training.batch_size)
    before = {"full": history} | dict.fromkeys(REDUCED, reduced)
    assert found.rows_trained == before.get(method, 0) + subsequent
    assert (found.before is None) == (method == "cold")
    assert bool(found.epochs) == (method in REDUCED)
    row = found.flat()
    assert {f"auc_{task}" for task in log.tasks} <= row.keys()
    assert row["auc"] == pytest.approx(sum(row[f"auc_{task}"] for task in log.tasks) / 3)
    assert 0 < row["auc"] < 1 and row["logloss"] > 0 and row["seconds"] > 0


def test_history_helps(drift_log: str, checkpoint: StoredCheckpoint) -> None:
    log = PreparedLog.open(drift_log)
    # Steps large enough that a few thousand rows teach something.
    training = TrainingConfig(batch_size=64, learning_rate=0.01)
    cold, full = (
        sum(cell(log, method, checkpoint, seed, training).after.auc for seed in range(3))
        for method in ("cold", "full")
    )
    assert full > cold


def test_a_cell_is_a_function_of_its_seed(drift_log: str, checkpoint: StoredCheckpoint) -> None:
    log = PreparedLog.open(drift_log)
    first, again, other = (cell(log, "random", checkpoint, seed) for seed in (0, 0, 1))
    assert first.after == again.after and first.after != other.after


def test_a_method_that_needs_a_checkpoint_says_so(drift_log: str) -> None:
    with pytest.raises(ConfigError, match="warmup needs a committed checkpoint"):
        cell(PreparedLog.open(drift_log), "warmup", None)


def test_newest_draws_its_rows_from_the_newest_block_and_as_many_as_the_memory_has(
    drift_log: str, tmp_path: Path
) -> None:
    run = diet_ray.distill(drift_log, str(tmp_path / "run"), TINY, probe_seeds=0)
    log = PreparedLog.open(drift_log)
    evaluator = Evaluator(RunState(log, run.folder, TINY), run.folder.root)
    rows = evaluator.reduced_rows("newest", seed=0)
    stored = evaluator.state.stored_rows(layout.baseline_rows("newest", 0))
    assert set(stored.stage_N.tolist()) == {3}
    assert rows.rows == run.records[-1].metrics.memory.rows
    newest = embed_rows(evaluator.state.checkpoint(3), joined(list(log.chunks(log.block(3)))))
    of_block = {row.numpy().tobytes() for row in newest.emb_NFD}
    assert all(row.numpy().tobytes() in of_block for row in rows.emb_NFD)
    assert not torch.equal(rows.emb_NFD, evaluator.reduced_rows("newest", seed=1).emb_NFD)

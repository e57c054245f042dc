"""A run whose checkpoints build on each other: what is checked, what a stream keeps, what damage leaves."""

import shutil
from pathlib import Path

import pytest

from diet_ray import layout
from diet_ray.errors import RunError
from diet_ray.log.stream.config import StreamConfig
from diet_ray.runs.run import Run
from diet_ray.runs.verification import verify_run
from diet_ray.training.checkpoints.manifest import checkpoint_stages
from diet_ray.training.checkpoints.restoring import restore
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.checkpoints.writing import write_checkpoint
from diet_ray.training.recommender import Recommender
from pipelines.runtime.micro_blocks import _obsolete_checkpoints
from tests.stored_checkpoint import same_state, single_file
from tests.test_checkpoint import recommender
from tests.test_checkpoint_parts import learned
from tests.tiny_run import stage_metrics

CONFIG = {"seed": 0}
STAGES = 5  # the first and the fourth are full


def stage_of(run: Run, learner: Recommender, stage: int) -> None:
    """Learn a block and commit it."""
    touched = learned(learner, stage, (50 + stage, 7, 4))
    stamps = write_checkpoint(run.folder, stage, learner, touched, every=3)
    memory = run.folder.write(layout.memory(stage), b"%d" % stage)
    run.commit(f"{stage:04d}", (*stamps, memory), stage_metrics())


def after(run: Run, stage: int) -> Recommender:
    learner = recommender()
    restore(learner, StoredCheckpoint(run.folder, stage))
    return learner


@pytest.fixture
def run(tmp_path: Path) -> Run:
    opened, learner = Run.open(str(tmp_path), CONFIG), recommender()
    for stage in range(1, STAGES + 1):
        stage_of(opened, learner, stage)
    return opened


def test_full_checkpoints_end_a_chain(run: Run) -> None:
    chains = [sorted(checkpoint_stages(run.folder, stage)) for stage in range(1, STAGES + 1)]
    assert chains == [[1], [1, 2], [1, 2, 3], [4], [4, 5]]


@pytest.mark.parametrize("stage", range(1, STAGES + 1))
def test_stopped_at_any_stage_a_run_continues_bit_for_bit(run: Run, stage: int, tmp_path: Path) -> None:
    expected = after(run, STAGES)
    for later in range(stage + 1, STAGES + 1):
        (tmp_path / layout.record(later)).unlink()
    resumed = Run.open(str(tmp_path), CONFIG)
    learner = after(resumed, stage)
    for later in range(stage + 1, STAGES + 1):
        stage_of(resumed, learner, later)
    assert same_state(after(resumed, STAGES), expected) and same_state(learner, expected)


@pytest.mark.parametrize("damage", ["changed", "cut short", "missing"])
@pytest.mark.parametrize(
    "path", ["reference/0004/rows-0-0000.safetensors", "reference/0005/dense.safetensors"]
)
def test_a_damaged_file_is_named_and_the_older_stage_stands(
    run: Run, path: str, damage: str, tmp_path: Path
) -> None:
    """Also where it belongs to an earlier stage that the newest checkpoint builds on."""
    expected, content = after(run, 3), (tmp_path / path).read_bytes()
    if damage == "missing":
        (tmp_path / path).unlink()
    else:
        changed = bytes([content[-1] ^ 1])
        (tmp_path / path).write_bytes(content[:-1] + (changed if damage == "changed" else b""))
    for refused in (lambda: Run.open(str(tmp_path), CONFIG), lambda: run.verify(5)):
        with pytest.raises(RunError, match=f"stage 5 is damaged: .*{path}"):
            refused()
    run.verify(3)
    for later in (5, 4):
        (tmp_path / layout.record(later)).unlink()
    resumed = Run.open(str(tmp_path), CONFIG)
    assert resumed.stage == 3 and not (tmp_path / "reference/0004").exists()
    learner = after(resumed, 3)
    assert same_state(learner, expected)
    stage_of(resumed, learner, 4)
    resumed.verify(4)


def test_a_stream_keeps_what_its_checkpoints_build_on(run: Run, tmp_path: Path) -> None:
    for keep_every, keep_last, obsolete in ((0, 2, [1, 2, 3]), (0, 3, []), (2, 2, [3]), (3, 2, [])):
        config = StreamConfig(keep_last=keep_last, keep_every=keep_every)
        assert sorted(_obsolete_checkpoints(run, config)) == obsolete
    for stage in (1, 2, 3):
        shutil.rmtree(tmp_path / layout.stage_folder("reference", stage))
    assert same_state(after(run, 5), after(Run.open(str(tmp_path), CONFIG), 5))


def test_verification_misses_what_a_kept_checkpoint_builds_on(tmp_path: Path) -> None:
    """But not the checkpoints of old stages that none builds on."""
    policy = StreamConfig(keep_last=2).model_dump(mode="json")
    run, learner = Run.open(str(tmp_path), {**CONFIG, "stream": policy}), recommender()
    for stage in range(1, STAGES + 1):
        stage_of(run, learner, stage)
    for stage in (1, 2, 3):
        shutil.rmtree(tmp_path / layout.stage_folder("reference", stage))
    assert not verify_run(str(tmp_path)).faults
    stage_of(run, learner, STAGES + 1)  # an increment over the fourth
    shutil.rmtree(tmp_path / layout.stage_folder("reference", 4))
    faults = verify_run(str(tmp_path)).faults
    assert {(fault.stage, fault.problem) for fault in faults} == {(4, "is missing")}
    assert {fault.path.split("/")[2] for fault in faults} == {
        "checkpoint.json",
        "dense.safetensors",
        "rows-0-0000.safetensors",
    }


def test_a_run_of_version_0_1_gets_a_full_checkpoint_and_then_increments(tmp_path: Path) -> None:
    run, learner = Run.open(str(tmp_path), CONFIG), recommender()
    learned(learner, 1, (51, 7, 4))
    single_file(learner, run.folder)
    stamp = run.folder.digest(layout.single_file_checkpoint(1))
    run.commit("0001", (stamp, run.folder.write(layout.memory(1), b"1")), stage_metrics())
    assert checkpoint_stages(run.folder, 1) == {1} and run.records[0].checkpoint_bytes == stamp.size
    for stage, chain in ((2, {2}), (3, {2, 3})):
        learner = after(run, stage - 1)
        stage_of(run, learner, stage)
        assert checkpoint_stages(run.folder, stage) == chain
        assert same_state(after(run, stage), learner)
    Run.open(str(tmp_path), CONFIG).verify(1)


def test_one_more_stage_leaves_the_older_checkpoints_as_they_are(run: Run, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tmp_path.glob("reference/*/*")}
    stage_of(run, after(run, STAGES), STAGES + 1)
    assert all(path.read_bytes() == content for path, content in before.items())

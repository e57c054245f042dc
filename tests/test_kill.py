"""SIGKILL to the driver in the middle of a stage; started again, the memory is the same, bit for bit."""

from pathlib import Path

import pytest
import yaml

import diet_ray
from diet_ray.config import RunConfig
from tests.kill_harness import finish, kill_when, start
from tests.tiny_run import TINY

STAGES = 3


def lasting_seconds() -> RunConfig:
    """Enough outer iterations that a stage can be killed in its middle."""
    outer = TINY.method.outer.model_copy(update={"iterations": 40})
    return TINY.model_copy(update={"method": TINY.method.model_copy(update={"outer": outer})})


def memories(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("memory/*/memory.parquet"))}


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stages", [(2,), (1, 2, 3)])
def test_a_killed_run_ends_with_the_same_memory(
    drift_log: str, tmp_path: Path, stages: tuple[int, ...]
) -> None:
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "out"
    config_file = tmp_path / "tiny.yaml"
    config_file.write_text(yaml.safe_dump(lasting_seconds().model_dump(mode="json")))
    diet_ray.distill(drift_log, str(whole), lasting_seconds(), probe_seeds=0)
    for stage in stages:
        record = killed / "stages" / f"{stage:04d}.json"
        before = killed / "stages" / f"{stage - 1:04d}.json"
        trained = killed / "reference" / f"{stage:04d}" / "trained.json"

        def in_the_middle(before: Path = before, trained: Path = trained, stage: int = stage) -> bool:
            # The checkpoint of the stage is written, its memory is not committed.
            return trained.exists() and (stage == 1 or before.exists())

        kill_when(start(drift_log, str(killed), str(config_file), log), in_the_middle)
        assert not record.exists()
        marks = {path: path.read_bytes() for path in killed.glob("reference/*/trained.json")}
    finish(start(drift_log, str(killed), str(config_file), log))
    # A mark has the seconds of the training: the same one was not trained again.
    assert {path: path.read_bytes() for path in marks} == marks
    assert len(memories(whole)) == STAGES
    assert memories(killed) == memories(whole)

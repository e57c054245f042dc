"""A run of many small blocks that stops after every stage has the memories of one that never stopped."""

from pathlib import Path

import pytest

from diet_ray import layout
from diet_ray.config import InnerConfig, MethodConfig, OuterConfig
from diet_ray.local import distill
from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.schema import EqualTime
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.manifest import Manifest
from tests.distinct_blocks import REFERENCE
from tests.tiny_run import TINY

BLOCKS = 8
QUICK = TINY.model_copy(
    update={
        "reference": REFERENCE,
        "method": MethodConfig(
            inner=InnerConfig(batch_size=16, horizon=2, window=1),
            outer=OuterConfig(iterations=1, real_rows=64),
        ),
    }
)


class StopError(Exception):
    """As an interruption between two stages."""


def stop(line: str) -> None:
    if line.startswith("stage "):
        raise StopError


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Blocks that meet some of many users."""
    config = DriftConfig(rows=1500, users=1000, items=300)
    schema = drift_schema(config)
    history = schema.blocks.history
    assert isinstance(history, EqualTime)
    blocks = schema.blocks.model_copy(update={"history": history.model_copy(update={"parts": BLOCKS})})
    source = write_drift_log(config, str(tmp_path))
    prepare(schema.model_copy(update={"blocks": blocks}), source, str(tmp_path))
    return str(tmp_path)


def test_a_run_that_stops_after_every_stage_ends_with_the_same_memories(log: str, tmp_path: Path) -> None:
    """So every checkpoint is restored, those that are full and those that build on others."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    distill(log, str(whole), QUICK, probe_seeds=0)
    for stage in range(1, BLOCKS + 1):
        with pytest.raises(StopError):
            distill(log, str(stopped), QUICK, stop, probe_seeds=0)
        memory, checkpoint = layout.memory(stage), layout.checkpoint(stage)
        assert (stopped / memory).read_bytes() == (whole / memory).read_bytes()
        assert (stopped / checkpoint).read_bytes() == (whole / checkpoint).read_bytes()
    manifests = [Manifest.read(Folder.at(str(stopped)), stage) for stage in range(1, BLOCKS + 1)]
    built_on = [manifest.increments for manifest in manifests if manifest]
    assert max(built_on) >= 2 and built_on.count(0) >= 2, built_on

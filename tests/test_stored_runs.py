"""Runs that version 0.1.0 wrote are read, resumed, and end with the memory it would have made.

tests/fixtures/runs_of_version_0.1.0.tar.gz was made by that version on a small shop's log: `run` is a
distillation of three blocks whose last stage was taken away, `stream` a stream that stopped after three of
six micro-blocks, `expected` what it wrote when nothing stopped it.
"""

import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import diet_ray
from actors.placement import ResourceConfig
from diet_ray.config import OF_LOG, RunConfig
from diet_ray.errors import ConfigError
from diet_ray.log.stream.config import StreamConfig
from diet_ray.runs.run import Run
from pipelines.runtime.recipe import Recipe, load_recipe
from pipelines.stream import Stream, stream

FIXTURE = Path(__file__).parent / "fixtures" / "runs_of_version_0.1.0.tar.gz"
ROUNDING = 1e-6  # processors differ in the last bits of a sum


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def settings(run: Path) -> RunConfig:
    config = Run.read(str(run)).config
    return RunConfig.model_validate({k: v for k, v in config.items() if k not in OF_LOG})


def assert_same_memory(found: Path, expected: Path) -> None:
    ours, theirs = pq.read_table(found), pq.read_table(expected)
    assert ours.schema.equals(theirs.schema)
    assert ours.column("stage").equals(theirs.column("stage"))
    assert ours.column("label_group").equals(theirs.column("label_group"))
    for name in ("embedding", "logits"):
        values = [table[name].combine_chunks().flatten().to_numpy() for table in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=0, atol=ROUNDING)


def test_its_records_and_config_are_read_with_the_names_of_today(stored: Path) -> None:
    run = Run.read(str(stored / "run"))
    assert run.stage == 2
    config = settings(stored / "run")
    assert (config.dim, config.reference.ensemble) == (4, ("finalnet",))
    boundary = config.method.boundary
    assert (boundary.quantile, boundary.span, boundary.realign) == (0.8, 0.9, True)
    assert config.method.outer.active_rows == "auto"
    metrics = run.records[1].metrics
    assert metrics.memory.rows == sum(metrics.memory.rows_by_stage.values()) == 24
    assert metrics.seconds.distill > 0
    run.verify(2)
    assert diet_ray.load_memory(str(stored / "run")).num_rows == 24


def test_a_distillation_resumes_to_the_same_memory(stored: Path) -> None:
    """Reference and memory of the last stage, from the checkpoint and the memory of the stage before."""
    run = stored / "run"
    done = diet_ray.distill(str(stored / "log"), str(run), settings(run))
    assert done.stage == 3
    assert_same_memory(run / "memory/0003/memory.parquet", stored / "expected/memory.parquet")


def test_a_stream_resumes_to_the_same_memory(ray_here: None, stored: Path) -> None:
    source, run = stored / "incoming", stored / "stream"
    policy = StreamConfig(block_rows=100, min_rows=50, keep_last=2, probe_every=2, lateness=1e9)
    recipe = Recipe(**settings(run).model_dump(), resources=ResourceConfig(threads=1))
    done = stream(
        Stream(
            dataset=str(stored / "stream.yaml"),
            source=str(source),
            run=str(run),
            until_idle=0.5,
            poll=0.05,
            stream=policy,
            settings=recipe,
        )
    )
    assert done.stage == 6
    assert_same_memory(run / "memory/0006/memory.parquet", stored / "expected/stream_memory.parquet")


def test_the_config_of_a_run_is_a_recipe(stored: Path) -> None:
    recipe = load_recipe(str(stored / "run/config.yaml"))
    assert recipe.run_config() == settings(stored / "run")


def test_a_recipe_with_an_old_key_is_refused_with_the_new_name(stored: Path) -> None:
    old = yaml.safe_load((stored / "run/config.yaml").read_text())
    old = {key: value for key, value in old.items() if key not in OF_LOG}
    (stored / "old.yaml").write_text(yaml.safe_dump(old))
    with pytest.raises(ConfigError, match="width is now called dim"):
        load_recipe(str(stored / "old.yaml"))
    for path, section, message in (
        ("reference", {"beside": ["dcn"]}, r"reference\.beside is now called reference\.ensemble"),
        ("method", {"boundary": {"percentile": 0.5}}, r"boundary\.percentile is now .*boundary\.quantile"),
        ("method", {"boundary": {"width": 0.5}}, r"boundary\.width is now .*boundary\.span"),
        ("method", {"boundary": {"carry": False}}, r"boundary\.carry is now .*boundary\.realign"),
    ):
        (stored / "old.yaml").write_text(yaml.safe_dump({path: section}))
        with pytest.raises(ConfigError, match=message):
            load_recipe(str(stored / "old.yaml"))

"""Runs that version 0.1.0 wrote are read and resumed.

The memories that follow are not those it would have made: within a bin of EL2N rows are chosen by a hash now,
and the pool has hard rows of the whole block, so other old rows are kept. How many rows there are, and how
many of each label group are new, is the same.

tests/fixtures/runs_of_version_0.1.0.tar.gz was made by that version on a small shop's log: `run` is a
distillation of three blocks whose last stage was taken away, `stream` a stream that stopped after three of
six micro-blocks, `expected` what it wrote when nothing stopped it.
"""

import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

import diet_ray
from actors.placement import ResourceConfig
from diet_ray.config import OuterConfig, RunConfig
from diet_ray.errors import ConfigError
from diet_ray.log.stream.config import StreamConfig
from diet_ray.runs.run import Run
from diet_ray.stored_config import OF_LOG
from pipelines.options.stream import Stream
from pipelines.runtime.recipe import Recipe, load_recipe
from pipelines.stream import stream

FIXTURE = Path(__file__).parent / "fixtures" / "runs_of_version_0.1.0.tar.gz"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def settings(run: Path) -> RunConfig:
    config = Run.read(str(run)).config
    return RunConfig.model_validate({k: v for k, v in config.items() if k not in OF_LOG})


def assert_alike(found: Path, expected: Path) -> None:
    """The same schema, rows, and label groups of the rows of the newest stage."""
    ours, theirs = pq.read_table(found), pq.read_table(expected)
    assert ours.schema.equals(theirs.schema)
    assert ours.num_rows == theirs.num_rows
    newest = max(ours.column("stage").to_pylist())
    groups = [
        Counter(table.filter(pc.equal(table["stage"], newest))["label_group"].to_pylist())
        for table in (ours, theirs)
    ]
    assert groups[0] == groups[1]
    for name in ("embedding", "logits"):
        assert np.isfinite(ours[name].combine_chunks().flatten().to_numpy()).all()


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
    assert config.method.outer.hard_share == OuterConfig().hard_share  # which version 0.1 had not
    run.verify(2)
    assert diet_ray.load_memory(str(stored / "run")).num_rows == 24


def test_a_distillation_is_resumed(stored: Path) -> None:
    """From the checkpoint and the memory of the stage before, which stay as they are."""
    run = stored / "run"
    files = [path for path in run.rglob("*") if path.is_file() and re.search("/000[12]", str(path))]
    before = {path: path.read_bytes() for path in files}
    done = diet_ray.distill(str(stored / "log"), str(run), settings(run), probe_seeds=0)
    assert done.stage == 3 and before
    assert all(path.read_bytes() == content for path, content in before.items())
    assert_alike(run / "memory/0003/memory.parquet", stored / "expected/memory.parquet")


@pytest.mark.long
def test_a_stream_is_resumed(ray_here: None, stored: Path) -> None:
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
    assert_alike(run / "memory/0006/memory.parquet", stored / "expected/stream_memory.parquet")


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

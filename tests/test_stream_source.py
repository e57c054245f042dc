"""What `stream` says of its source before it reads, and of rows that it leaves at its end."""

from pathlib import Path

import pyarrow as pa
import pytest

from diet_ray.errors import ConfigError
from diet_ray.log.stream.config import StreamConfig
from pipelines.options.stream import Stream
from pipelines.runtime.recipe import Recipe
from pipelines.stream import check_source, stream
from tests.stream_log import publish, publish_all, write_log
from tests.tiny_run import TINY


@pytest.fixture
def log(tmp_path: Path) -> pa.Table:
    return write_log(tmp_path)


def of(folder: Path, source: str, run: str = "run") -> Stream:
    return Stream(
        dataset=str(folder / "schema.yaml"),
        source=str(folder / source),
        run=str(folder / run),
        until_idle=0.3,
        poll=0.05,
        stream=StreamConfig(block_rows=500, min_rows=200),
        settings=Recipe.model_validate(TINY.model_dump()),
    )


def test_a_file_is_no_source_and_nothing_is_started(tmp_path: Path, log: pa.Table) -> None:
    (tmp_path / "clicks.csv").touch()
    with pytest.raises(ConfigError, match=r"clicks.csv is a file: a stream reads a folder .* or a topic"):
        stream(of(tmp_path, "clicks.csv"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("source", "run"), [("in", "in/run"), ("in", "in"), ("link", "in/run")])
def test_a_run_below_its_source_is_refused(tmp_path: Path, log: pa.Table, source: str, run: str) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ConfigError, match=f"/{run} lies below --source .*/{source}: the run's own files"):
        stream(of(tmp_path, source, run))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_source(str(tmp_path / "incomming [1]"), str(tmp_path / "run"))
    assert f"there is no folder {tmp_path}/incomming [1]; waiting for it" in capsys.readouterr().err
    check_source("kafka://127.0.0.1:9/clicks", str(tmp_path / "run"))
    check_source(str(tmp_path), str(tmp_path.parent / "run"))
    assert not capsys.readouterr().err


def test_rows_too_few_for_a_block_are_named_at_the_end_and_read_again(
    ray_here: None, tmp_path: Path, log: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_all(tmp_path, log.slice(0, 120), 2)
    assert stream(of(tmp_path, "in")).stage == 0
    said = capsys.readouterr().err
    assert "120 rows wait for a block" in said and "200 rows (--stream.min-rows)" in said
    publish(tmp_path, "later.parquet", log.slice(120, 100))
    run = stream(of(tmp_path, "in"))
    assert [record.metrics.block_rows for record in run.records] == [220]
    assert "wait for a block" not in capsys.readouterr().err

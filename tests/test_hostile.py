"""A run directory that somebody has tampered with is refused, and says what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.worker import RunWorker
from diet_ray import layout, load_memory
from diet_ray.errors import DataError, RunError
from diet_ray.log.dataset import MANIFEST
from diet_ray.log.stream.run_log import open_log
from diet_ray.runs.run import Run
from diet_ray.storage import FileStamp
from pipelines.runtime.run_access import log_of
from tests.tiny_run import TINY

HUGE = (2**62).to_bytes(8, "little") + b"{}"  # a safetensors header of four exabytes


@pytest.fixture
def run(run_dir: str, tmp_path: Path) -> Path:
    """A finished run of one's own to spoil."""
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def config_of(run: Path) -> dict[str, Any]:
    return Run.read(str(run)).config


def edit_record(run: Path, change: Callable[[dict[str, Any]], None]) -> int:
    """Change the newest record, which no other follows; return its stage."""
    path = sorted((run / "stages").glob("*.json"))[-1]
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return int(path.stem)


def replace(run: Path, part: str, content: bytes) -> int:
    """Put other content in place of a file of the newest stage, and make its record agree."""

    def change(record: dict[str, Any]) -> None:
        for stamp in record["files"]:
            if stamp["path"].startswith(part):
                (run / stamp["path"]).write_bytes(content)
                stamp.update(FileStamp.of(stamp["path"], content)._asdict())

    return edit_record(run, change)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "memory/../../secret"])
def test_a_path_that_leads_outside(run: Path, path: str) -> None:
    (run.parent / "secret").write_text("mine")

    def change(record: dict[str, Any]) -> None:
        record["files"][0]["path"] = path

    edit_record(run, change)
    with pytest.raises(RunError, match="leads outside"):
        Run.open(str(run), config_of(run))


@pytest.mark.parametrize("part", ["reference", "memory"])
def test_a_file_that_does_not_match_its_checksum(run: Path, part: str) -> None:
    stamps = json.loads(sorted((run / "stages").iterdir())[-1].read_text())["files"]
    file = run / next(stamp["path"] for stamp in stamps if stamp["path"].startswith(part))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match=f"{file.name} does not match the checksum in its record"):
        Run.open(str(run), config_of(run))
    if part == "memory":
        with pytest.raises(DataError, match="does not match the checksum"):
            load_memory(str(run))


def test_a_checkpoint_with_an_oversized_header(run: Path) -> None:
    stage = replace(run, "reference/0003/dense", HUGE)
    worker = RunWorker(log_of(str(run)), str(run), TINY.model_dump(mode="json"), threads=1)
    with pytest.raises(RunError, match=r"checkpoint is damaged.*[Hh]eader"):
        worker.state.checkpoint(stage)
    replace(run, "reference/0003/dense", b"\x80\x04cposix\nsystem\n.")  # a pickle is no checkpoint
    with pytest.raises(RunError, match="checkpoint is damaged"):
        worker.state.checkpoint(stage)


def test_a_memory_that_is_no_parquet(run: Path) -> None:
    content = b"PAR1" + b"\xff" * 64 + b"PAR1"
    stage = replace(run, "memory", content)
    path = f"memory/{stage:04d}/memory.parquet"
    (run / layout.LATEST_MEMORY).write_text(
        json.dumps({"stage": stage, **FileStamp.of(path, content)._asdict()})
    )
    with pytest.raises(DataError, match="is not a memory"):
        load_memory(str(run))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"format": 1e999}', b"[" * 100_000])
def test_a_record_that_is_none(run: Path, content: bytes) -> None:
    sorted((run / "stages").glob("*.json"))[-1].write_bytes(content)
    with pytest.raises(RunError):
        Run.read(str(run))


def test_a_log_whose_blocks_lead_outside(run: Path, tmp_path: Path) -> None:
    log = Path(shutil.copytree(log_of(str(run)), tmp_path / "log"))
    manifest = log / MANIFEST
    found = manifest.read_text()
    manifest.write_text(found.replace('"blocks/', '"../blocks/'))
    with pytest.raises(DataError, match="leads outside"):
        opened = open_log(str(log))
        list(opened.chunks(opened.block(1)))

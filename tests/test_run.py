"""A stage is all or nothing, and a run directory that is not ours is refused."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray import load_memory
from diet_ray.errors import DataError, RunError
from diet_ray.runs.run import Run
from tests.tiny_run import stage_metrics

CONFIG = {"seed": 0, "ratio": 0.015}


def with_stages(path: Path, stages: int) -> Run:
    run = Run.open(str(path), CONFIG)
    for stage in range(1, stages + 1):
        stamp = run.folder.write(f"memory/{stage:04d}/memory.bin", b"rows of %d" % stage)
        run.commit(f"block {stage}", (stamp,), stage_metrics(stage))
    return run


def test_a_reopened_run_stands_where_it_stood(tmp_path: Path) -> None:
    written = with_stages(tmp_path, 3)
    again = Run.open(str(tmp_path), CONFIG)
    assert again.stage == 3 and again.records == written.records
    again.verify(2)


def test_files_of_an_unfinished_stage_are_swept_and_others_stay(tmp_path: Path) -> None:
    run = with_stages(tmp_path, 2)
    run.folder.write("memory/0003/memory.bin", b"half done")
    run.folder.write("memory/notes.txt", b"the user's own")
    Run.open(str(tmp_path), CONFIG)
    assert sorted(p.name for p in (tmp_path / "memory").iterdir()) == [
        "0001",
        "0002",
        "latest.json",
        "notes.txt",
    ]


def test_another_config_is_refused_by_key(tmp_path: Path) -> None:
    with_stages(tmp_path, 1)
    with pytest.raises(RunError, match=r"ratio: the run has 0\.015, this command asks for 0\.02"):
        Run.open(str(tmp_path), {**CONFIG, "ratio": 0.02})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = with_stages(tmp_path, 2)
    (tmp_path / "memory/0002/memory.bin").write_bytes(b"rows")
    with pytest.raises(RunError, match=r"stage 2 is damaged: .*memory/0002/memory.bin"):
        run.verify(2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"previous": "0" * 64}, "does not follow"),
        ({"stage": 7}, "does not follow"),
        ({"format": 99}, "format version 99"),
        ({"unknown": 1}, "not a commit record"),
        ({"files": "x"}, "not a commit record"),
    ],
)
def test_a_foreign_record_is_refused(tmp_path: Path, change: dict, says: str) -> None:
    with_stages(tmp_path, 2)
    path = tmp_path / "stages/0002.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError, match=says):
        Run.open(str(tmp_path), CONFIG)


def test_a_record_that_points_outside_the_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    run = with_stages(tmp_path / "run", 1)
    path = tmp_path / "run/stages/0001.json"
    path.write_text(path.read_text().replace("memory/0001/memory.bin", "memory/../../secret"))
    run = Run.read(str(tmp_path / "run"))
    with pytest.raises(RunError, match="leads outside"):
        run.verify(1)


def test_a_stage_is_committed_once(tmp_path: Path) -> None:
    first, second = (Run.open(str(tmp_path), {"seed": 0}) for _ in range(2))
    stamp = first.folder.write("memory/0001/memory.parquet", b"1")
    first.commit("0001", (stamp,), stage_metrics())
    with pytest.raises(RunError, match="was committed by another process"):
        second.commit("0001", (stamp,), stage_metrics(2))
    assert Run.read(str(tmp_path)).records[0].metrics == stage_metrics()


def memory_of(value: float) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"embedding": [value]}), buffer)
    return buffer.getvalue()


def test_consumers_read_the_newest_memory_or_that_of_a_stage(tmp_path: Path) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    with pytest.raises(RunError, match=r"has no memory yet: there is no memory/latest\.json"):
        load_memory(str(tmp_path))
    for stage in (1, 2):
        stamp = run.folder.write(f"memory/{stage:04d}/memory.parquet", memory_of(stage))
        run.commit(f"{stage:04d}", (stamp,), stage_metrics())
        assert load_memory(str(tmp_path))["embedding"].to_pylist() == [stage]
    assert load_memory(str(tmp_path), 1)["embedding"].to_pylist() == [1]
    with pytest.raises(RunError, match="no memory of stage 3; it has 2 stages"):
        load_memory(str(tmp_path), 3)


def test_a_crash_between_record_and_pointer_is_repaired(tmp_path: Path) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    stamp = run.folder.write("memory/0001/memory.parquet", memory_of(1))
    run.commit("0001", (stamp,), stage_metrics())
    (tmp_path / "memory/latest.json").unlink()
    Run.open(str(tmp_path), {"seed": 0})
    assert load_memory(str(tmp_path)).num_rows == 1


@pytest.mark.parametrize(
    ("latest", "message"),
    [
        ({"path": "../secret", "size": 3, "sha256": ""}, "leads outside"),
        ({"path": "/etc/passwd", "size": 3, "sha256": ""}, "leads outside"),
        ({"path": "memory/0001/memory.parquet"}, "is malformed"),
        ({"path": "memory/0001/memory.parquet", "size": 3, "sha256": "00"}, "has .* bytes"),
    ],
)
def test_a_hostile_pointer_is_refused(tmp_path: Path, latest: dict, message: str) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    stamp = run.folder.write("memory/0001/memory.parquet", memory_of(1))
    run.commit("0001", (stamp,), stage_metrics())
    run.folder.write_json("memory/latest.json", latest)
    with pytest.raises((RunError, DataError), match=message):
        load_memory(str(tmp_path))

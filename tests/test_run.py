"""A stage is all or nothing, and a run directory that is not ours is refused."""

import json
from pathlib import Path

import pytest

from diet_ray.errors import RunError
from diet_ray.run import Run, verify

CONFIG = {"seed": 0, "ratio": 0.015}


def with_stages(path: Path, stages: int) -> Run:
    run = Run.open(str(path), CONFIG)
    for stage in range(1, stages + 1):
        stamp = run.folder.write(f"memory/{stage:04d}/memory.bin", b"rows of %d" % stage)
        run.commit(f"block {stage}", (stamp,), {"rows": stage})
    return run


def test_a_reopened_run_stands_where_it_stood(tmp_path: Path) -> None:
    written = with_stages(tmp_path, 3)
    again = Run.open(str(tmp_path), CONFIG)
    assert again.stage == 3 and again.records == written.records
    verify(again, 2)


def test_files_of_an_unfinished_stage_are_swept_and_others_stay(tmp_path: Path) -> None:
    run = with_stages(tmp_path, 2)
    run.folder.write("memory/0003/memory.bin", b"half done")
    run.folder.write("memory/notes.txt", b"the user's own")
    Run.open(str(tmp_path), CONFIG)
    assert sorted(p.name for p in (tmp_path / "memory").iterdir()) == ["0001", "0002", "notes.txt"]


def test_another_config_is_refused_by_key(tmp_path: Path) -> None:
    with_stages(tmp_path, 1)
    with pytest.raises(RunError, match=r"ratio is 0\.015 there, 0\.02 here"):
        Run.open(str(tmp_path), {**CONFIG, "ratio": 0.02})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = with_stages(tmp_path, 2)
    (tmp_path / "memory/0002/memory.bin").write_bytes(b"rows")
    with pytest.raises(RunError, match=r"stage 2 is damaged: .*memory/0002/memory.bin"):
        verify(run, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"previous": "0" * 64}, "does not follow"),
        ({"stage": 7}, "does not follow"),
        ({"format": 99}, "another format"),
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
    path.write_text(path.read_text().replace("memory/0001/memory.bin", "../secret"))
    run = Run.open(str(tmp_path / "run"), CONFIG)
    with pytest.raises(RunError, match="leads outside"):
        verify(run, 1)

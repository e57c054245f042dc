"""`diet-ray rollback`: stages go, newest first; readers always find a memory; the run goes on from there."""

import io
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray import distill, load_memory
from diet_ray.errors import RunError
from diet_ray.lease import Lease
from diet_ray.runs.rollback import removed_stages, roll_back
from diet_ray.runs.run import Run
from diet_ray.storage import Folder
from pipelines.cli import main
from pipelines.stream import stream
from tests.stream_log import events, publish_all, write_log
from tests.test_stream import SMALL, asked
from tests.tiny_run import TINY, stage_metrics, with_files


def rollback(run: Path, to: int) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rollback", str(run), "--to", str(to), "--yes"])
    assert not ended.value.code


def test_it_shows_what_it_would_remove_and_removes_it_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_files(tmp_path, {"seed": 0}, 4)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit):
        main(["rollback", str(tmp_path), "--to", "2"])
    printed = capsys.readouterr()
    assert "2 records and the 12 files" in printed.out and "add --yes" in printed.err
    assert sorted(tmp_path.rglob("*")) == before
    rollback(tmp_path, 2)
    assert "is at stage 2" in capsys.readouterr().err
    run = Run.open(str(tmp_path), {"seed": 0})
    assert run.stage == 2 and run.folder.read_json("memory/latest.json")["path"] == "memory/0002/file"
    for folder in ("reference", "memory", "blocks", "vocabulary", "events", "quarantine"):
        assert not {"0003", "0004"} & {path.name for path in (tmp_path / folder).iterdir()}
    assert not (tmp_path / "lease.json").exists()


def test_what_is_no_stage_to_go_back_to_is_refused(tmp_path: Path) -> None:
    run = with_files(tmp_path, {"seed": 0}, 3)
    for to in (0, 3, 7, -1):
        with pytest.raises(RunError, match=rf"cannot go back to stage {to}: it has 3 stages.* 1 to 2"):
            removed_stages(run, to)
    (tmp_path / "memory/0002/file").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"stage 2 is damaged: .*; it can go back to stage 1$"):
        removed_stages(run, 2)
    (tmp_path / "vocabulary/0001/file").unlink()
    with pytest.raises(RunError, match="there is no stage that it can go back to"):
        removed_stages(run, 2)


def test_a_run_that_is_written_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_files(tmp_path, {"seed": 0}, 3)
    with Lease(Folder.at(str(tmp_path))), pytest.raises(SystemExit) as ended:
        main(["rollback", str(tmp_path), "--to", "1", "--yes"])
    assert ended.value.code == 2 and "is being written by process" in capsys.readouterr().err
    assert Run.read(str(tmp_path)).stage == 3


def with_memories(path: Path, stages: int) -> Run:
    run = Run.open(str(path), {"seed": 0})
    for stage in range(1, stages + 1):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"stage": [stage]}), buffer)
        stamp = run.folder.write(f"memory/{stage:04d}/memory.parquet", buffer.getvalue())
        run.commit(f"{stage:04d}", (stamp,), stage_metrics())
    return run


def test_readers_find_a_memory_at_any_time(tmp_path: Path) -> None:
    seen: list[int] = []
    over, failed = threading.Event(), []

    def read_on() -> None:
        try:
            while not over.is_set():
                seen.extend(load_memory(str(tmp_path))["stage"].to_pylist())
        except Exception as error:
            failed.append(error)

    with_memories(tmp_path, 40)
    readers = [threading.Thread(target=read_on) for _ in range(3)]
    for reader in readers:
        reader.start()
    for to in range(39, 0, -1):
        run = Run.read(str(tmp_path))
        with Lease(run.folder) as lease:
            roll_back(run, to, lease)
    over.set()
    for reader in readers:
        reader.join()
    assert not failed and 1 in load_memory(str(tmp_path))["stage"].to_pylist()
    assert len(set(seen)) > 3


@pytest.mark.parametrize("crash", range(4))
def test_interrupted_anywhere_a_run_is_left_that_can_go_back_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    """A crash before the n-th removal of a record or of a folder."""
    run = with_memories(tmp_path, 4)
    remove, calls = run.folder.fs.rm, []

    def failing(path: str, recursive: bool = False) -> None:
        if path.endswith("lease.json"):
            return remove(path)
        calls.append(path)
        if len(calls) > crash:
            raise OSError(5, "Input/output error", path)
        return remove(path, recursive=recursive)

    with monkeypatch.context() as patched:
        patched.setattr(run.folder.fs, "rm", failing)
        with pytest.raises(OSError, match="Input/output"), Lease(run.folder) as lease:
            roll_back(run, 2, lease)
    assert load_memory(str(tmp_path))["stage"].to_pylist() == [2]
    opened = Run.open(str(tmp_path), {"seed": 0})
    assert opened.stage == max(2, 4 - crash)
    assert load_memory(str(tmp_path))["stage"].to_pylist() == [opened.stage]
    if opened.stage > 2:
        with Lease(opened.folder) as lease:
            assert roll_back(opened, 2, lease).stage == 2
    assert sorted(path.name for path in (tmp_path / "memory").iterdir()) == ["0001", "0002", "latest.json"]


def test_who_lost_the_lease_removes_no_record(tmp_path: Path) -> None:
    run = with_memories(tmp_path, 3)
    with Lease(run.folder) as lease:
        run.folder.write_json("lease.json", {**run.folder.read_json("lease.json"), "token": "other"})
        with pytest.raises(RunError, match="was taken over"):
            roll_back(run, 1, lease)
    assert Run.read(str(tmp_path)).stage == 3


def test_a_distillation_goes_on_to_the_same_memory(drift_log: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    distill(drift_log, str(run), TINY, probe_seeds=0)
    memory = (run / "memory/0003/memory.parquet").read_bytes()
    rollback(run, 1)
    assert Run.read(str(run)).stage == 1 and not (run / "reference/0002").exists()
    distill(drift_log, str(run), TINY, probe_seeds=0)
    assert (run / "memory/0003/memory.parquet").read_bytes() == memory


@pytest.mark.long
def test_a_stream_takes_the_rows_of_the_removed_stages_again(ray_here: None, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    publish_all(tmp_path, log.slice(0, 2000), 3)
    kept = SMALL.model_copy(update={"keep_last": 3})
    run = tmp_path / "run"
    stream(asked(tmp_path, stream=kept))
    memories = {path: path.read_bytes() for path in run.glob("memory/*/memory.parquet")}
    assert [path.parent.name for path in sorted(memories)] == ["0002", "0003", "0004"]
    taken = sorted(events(run))  # those of stage 1 are no longer needed
    assert len(set(taken)) == len(taken) == 1500
    with pytest.raises(RunError, match=r"stage 1 is damaged: .*; it can go back to stage 3, 2$"):
        removed_stages(Run.read(str(run)), 1)
    rollback(run, 2)
    shown, second = load_memory(str(run)), load_memory(str(run), 2)
    # Influence has NaN, which equals nothing.
    assert shown.drop_columns(["influence"]).equals(second.drop_columns(["influence"]))
    again = stream(asked(tmp_path, stream=kept))
    assert again.stage == 4 and sum(record.metrics.block_rows for record in again.records) == 2000
    assert {path: path.read_bytes() for path in memories} == memories
    assert sorted(events(run)) == taken


@pytest.mark.long
def test_the_events_that_a_kept_stage_needs_are_kept(ray_here: None, tmp_path: Path) -> None:
    """Else a stream that goes back would take a row that comes twice, twice."""
    log = write_log(tmp_path)
    publish_all(tmp_path, log.slice(0, 2000), 3)
    policy = SMALL.model_copy(update={"keep_last": 2, "lateness": 0.0})
    run = stream(asked(tmp_path, stream=policy))
    assert sorted(path.name for path in (tmp_path / "run/events").iterdir()) == ["0003", "0004"]
    assert len(removed_stages(run, 3)) == 1
    shutil.rmtree(tmp_path / "run/events/0003")
    with pytest.raises(RunError, match=r"events/0003/events\.parquet"):
        removed_stages(run, 3)

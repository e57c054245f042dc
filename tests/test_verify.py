"""`diet-ray verify`: whatever of a run is not as its records say is named; what a policy removed is not."""

import json
import shutil
from pathlib import Path

import pytest

from diet_ray.errors import RunError
from diet_ray.runs.run import Run
from diet_ray.runs.verification import verify_run
from pipelines.cli import main
from tests.tiny_run import with_files

STREAM = {"seed": 0, "stream": {"block_rows": 10, "keep_last": 2, "keep_every": 0}}


def faults(run: Path) -> list[str]:
    return [str(fault) for fault in verify_run(str(run)).faults]


def test_a_whole_run_has_no_fault_and_every_file_is_read(tmp_path: Path) -> None:
    run = with_files(tmp_path, {"seed": 0}, 3)
    reports: list[tuple[int, int]] = []
    found = verify_run(str(tmp_path), lambda *report: reports.append(report))
    size = sum(stamp.size for record in run.records for stamp in record.files)
    assert found == (3, 18, 0, size, ())
    assert reports == [(n, 18) for n in range(1, 19)]


@pytest.mark.parametrize("part", ["reference", "memory", "blocks", "vocabulary", "events", "quarantine"])
def test_a_file_that_is_gone_cut_or_changed_is_named_whatever_its_stage(tmp_path: Path, part: str) -> None:
    with_files(tmp_path, {"seed": 0}, 3)
    paths = [tmp_path / part / f"000{stage}/file" for stage in (1, 2, 3)]
    content = paths[1].read_bytes()
    paths[0].unlink()
    paths[1].write_bytes(content[::-1])
    paths[2].write_bytes(b"")
    assert faults(tmp_path) == [
        f"stage 1: {part}/0001/file is missing",
        f"stage 2: {part}/0002/file does not match the checksum in its record",
        f"stage 3: {part}/0003/file has 0 bytes, its record says {len(content)}",
    ]


def test_a_record_that_is_gone_malformed_or_changed_is_named_with_what_follows(tmp_path: Path) -> None:
    for name in ("gone", "cut", "changed"):
        with_files(tmp_path / name, {"seed": 0}, 3)
    (tmp_path / "gone/stages/0002.json").unlink()
    assert faults(tmp_path / "gone") == [
        "stage 2: stages/0002.json is missing, and there are stages after it"
    ]
    record = tmp_path / "cut/stages/0002.json"
    record.write_bytes(record.read_bytes()[:100])
    first, second = faults(tmp_path / "cut")
    assert first.startswith("stage 2: stages/0002.json is malformed: ")
    assert second == "stage 3: stages/0003.json does not follow the record and config before it"
    record = tmp_path / "changed/stages/0001.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "block": "another"}))
    assert faults(tmp_path / "changed") == [
        "stage 2: stages/0002.json does not follow the record and config before it"
    ]


def test_a_changed_config_and_a_wrong_pointer_are_named(tmp_path: Path) -> None:
    with_files(tmp_path, {"seed": 0}, 2)
    (tmp_path / "memory/latest.json").write_text("{}")
    assert faults(tmp_path)[0].startswith("memory/latest.json names no memory")
    shutil.copy(tmp_path / "stages/0001.json", tmp_path / "memory/latest.json")
    assert faults(tmp_path) == [
        "memory/latest.json does not name the newest memory; the next start of the run repairs it"
    ]
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert [fault for fault in faults(tmp_path) if "follow" in fault] == [
        f"stage {stage}: stages/000{stage}.json does not follow the record and config before it"
        for stage in (1, 2)
    ]


def test_what_a_stream_removes_by_its_policy_is_not_missed_and_counted(tmp_path: Path) -> None:
    with_files(tmp_path, STREAM, 3)
    for part in ("reference", "memory", "blocks", "events"):
        shutil.rmtree(tmp_path / part / "0001")
    found = verify_run(str(tmp_path))
    assert (found.removed, found.faults) == (4, ())
    shutil.rmtree(tmp_path / "memory/0002")
    assert faults(tmp_path) == ["stage 2: memory/0002/file is missing"]


def test_a_file_outside_the_run_is_not_read(tmp_path: Path) -> None:
    with_files(tmp_path / "run", {"seed": 0}, 1)
    (tmp_path / "secret").write_bytes(b"x")
    record = tmp_path / "run/stages/0001.json"
    record.write_text(record.read_text().replace("memory/0001/file", "memory/../../secret"))
    assert any("leads outside" in fault for fault in faults(tmp_path / "run"))


def test_the_command_ends_with_two_names_the_files_and_says_where_to_go_back_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_files(tmp_path, {"seed": 0}, 3)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path)])
    assert not ended.value.code and "3 stages, 18 files" in capsys.readouterr().out
    (tmp_path / "memory/0003/file").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path)])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert "stage 3: memory/0003/file is missing\n" in printed.out
    assert "has 1 faults" in printed.err and f"`diet-ray rollback {tmp_path} --to 2`" in printed.err
    with pytest.raises(SystemExit):
        main(["verify", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == [{"stage": 3, "path": "memory/0003/file", "problem": "is missing"}]
    with pytest.raises(RunError, match="is not a run"):
        verify_run(str(tmp_path / "nowhere"))


def test_a_stage_that_a_running_stream_removes_meanwhile_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_files(tmp_path, STREAM, 2)
    stamp_of = type(run.folder).digest

    def digest(folder: object, path: str) -> object:
        if path == "memory/0001/file" and run.stage == 2:
            memory = run.folder.write("memory/0003/file", b"3")
            run.commit("0003", (memory,), run.records[0].metrics)
            shutil.rmtree(tmp_path / "memory/0001")
        return stamp_of(run.folder, path)

    monkeypatch.setattr(type(run.folder), "digest", digest)
    found = verify_run(str(tmp_path))
    assert (found.removed, found.faults) == (1, ())
    assert Run.read(str(tmp_path)).stage == 3

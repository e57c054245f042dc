"""The parts of a run: metrics, records and their chain, leases, the reference on its way through stages."""

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import torch
import yaml

import diet_ray
from diet_ray import layout
from diet_ray import lease as lease_module
from diet_ray import local as local_module
from diet_ray.config import RunConfig, TrainingConfig
from diet_ray.distillation.memory import to_arrow
from diet_ray.distillation.memory_update import memory_schema, new_reference
from diet_ray.errors import DataError, RunError
from diet_ray.lease import Lease, holder_of, started_at
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.stream.intake_state import IntakeState
from diet_ray.runs import published_memory as published_module
from diet_ray.runs.history import history_block, history_budget, log_identity
from diet_ray.runs.metrics import MemoryMetrics, StageMetrics, StreamMetrics
from diet_ray.runs.records import FORMAT, StageRecord, sha256
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.run import Run
from diet_ray.runs.stage import Clock, TrainedBlock
from diet_ray.runs.state import RunState
from diet_ray.seeding import derived_seed
from diet_ray.storage import FileStamp, Folder
from diet_ray.strict import differences
from diet_ray.training.checkpoints.restoring import restore
from diet_ray.training.embedding import embed_rows, score_block
from diet_ray.training.learning import learn_block, new_recommender
from tests.distinct_blocks import SMALL, same_tensors, write_distinct_blocks
from tests.stored_checkpoint import same_state
from tests.test_memory import memory
from tests.tiny_run import stage_metrics, with_files


class Finished(NamedTuple):
    log: PreparedLog
    run: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("parts")
    log = write_distinct_blocks(folder / "log")
    diet_ray.distill(str(folder / "log"), str(folder / "run"), SMALL, probe_seeds=0)
    return Finished(log, folder / "run")


def trainer(finished: Finished, folder: Path) -> ReferenceTrainer:
    return ReferenceTrainer(RunState(finished.log, Folder.at(str(folder)), SMALL))


def test_the_reference_learns_block_after_block_from_its_own_state(
    finished: Finished, tmp_path: Path
) -> None:
    learner = new_recommender(
        new_reference(finished.log, SMALL, "reference"), finished.log, 4, SMALL.training
    )
    own, seed = trainer(finished, tmp_path), derived_seed(SMALL.seed, "reference")
    for stage in (1, 2):
        block, done = finished.log.block(stage), list[int]()
        if stage > 1:
            scores = own.progressive(stage)
            assert scores == score_block(learner, finished.log, block)
        stamps, loss = own.train(stage, done.append)
        assert loss == learn_block(learner, finished.log, block, SMALL.training, seed)
        assert sum(done) == block.rows and own.stage == stage
        assert stamps[0].path == layout.checkpoint(stage)
        for stamp in stamps:
            assert stamp.verified(Folder.at(str(tmp_path))) == (finished.run / stamp.path).read_bytes()
        restored = own.state.new_reference()
        restore(restored, own.state.stored_checkpoint(stage))
        assert same_state(restored, learner)


def test_the_reference_goes_to_the_checkpoint_before_a_stage(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "run")
    own, expected = trainer(finished, tmp_path / "run"), {}
    for stage in (1, 2):
        expected[stage] = (tmp_path / "run" / layout.checkpoint(stage)).read_bytes()
    for stage in (2, 1, 2, 2, 1, 1):
        stamps, _ = own.train(stage)
        assert stamps[0] == FileStamp.of(layout.checkpoint(stage), expected[stage])
    fresh = trainer(finished, tmp_path / "run")
    second = finished.log.block(2)
    before = fresh.state.checkpoint(1)
    assert fresh.progressive(2) == score_block(before, finished.log, second)
    assert fresh.stage == 1


def test_a_reference_that_stopped_half_way_is_read_again(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "run")
    own = trainer(finished, tmp_path / "run")
    expected = (tmp_path / "run" / layout.checkpoint(2)).read_bytes()

    class StoppedError(Exception):
        pass

    def stop(rows: int) -> None:
        raise StoppedError

    for stage in (2, 1):
        own.train(1)
        with pytest.raises(StoppedError):
            own.train(stage, stop)
        assert own.stage not in (0, 1, 2)
        assert own.train(2)[0][0] == FileStamp.of(layout.checkpoint(2), expected)


def test_the_state_of_a_run_reads_what_each_stage_left(finished: Finished) -> None:
    state = RunState.open(finished.log.folder.root, str(finished.run), SMALL)
    assert state.log.fingerprint == finished.log.fingerprint and state.memory(0) is None
    for stage in (1, 2):
        whole = state.new_reference()
        restore(whole, state.stored_checkpoint(stage))
        scoring = state.checkpoint(stage)
        assert same_tensors(whole.dense, scoring.dense) and whole.table_optimiser.state
        first = next(finished.log.chunks(finished.log.block(stage)))
        ours, theirs = (embed_rows(model, first).emb_NFD for model in (whole, scoring))
        assert torch.equal(ours, theirs)
        stored = state.memory(stage)
        table = pq.read_table(finished.run / layout.memory(stage))
        assert stored and stored.rows == table.num_rows == (32, 60)[stage - 1]
        assert torch.equal(
            stored.logit_NT.flatten(), torch.tensor(table["logits"].combine_chunks().flatten())
        )
    new = state.new_reference()
    assert new.tables.rows == (0, 0, 0) and new.table_optimiser.param_groups[0]["lr"] == 0.02
    assert new.clip_norm == SMALL.training.clip_norm == TrainingConfig().clip_norm


@pytest.mark.parametrize(
    ("share", "stage", "old_rows", "expected"),
    [(0.8, 1, 0, (32, 32)), (0.8, 2, 32, (60, 48)), (0.3, 2, 32, (60, 28)), (0.8, 2, 0, (60, 60))],
)
def test_the_budget_of_a_stage(
    finished: Finished, share: float, stage: int, old_rows: int, expected: tuple[int, int]
) -> None:
    config = SMALL.model_dump()
    config["method"]["boundary"]["new_share"] = share
    assert history_budget(finished.log, RunConfig.model_validate(config), stage, old_rows) == expected


def test_no_more_rows_are_selected_than_the_block_has(finished: Finished) -> None:
    config = SMALL.model_copy(update={"ratio": 1.0})
    assert history_budget(finished.log, config, 2, 0) == (300, 140)


def test_the_blocks_of_history_are_the_stages(finished: Finished) -> None:
    blocks = [history_block(finished.log, stage) for stage in (1, 2, 3)]
    assert [block.name if block else None for block in blocks] == ["0001", "0002", None]
    assert log_identity(finished.log) == {"log": "small", "fingerprint": finished.log.fingerprint}


def test_a_distillation_in_this_process_reports_and_commits_each_stage(
    finished: Finished, tmp_path: Path
) -> None:
    lines: list[str] = []
    folder = finished.log.folder.root
    run = diet_ray.distill(folder, str(tmp_path / "run"), SMALL, lines.append, probe_seeds=0)
    assert lines == ["stage 1: 32 rows of memory", "stage 2: 60 rows of memory"]
    assert run.stage == 2 and run.run_config == SMALL
    assert run.config["log"] == "small" and run.config["fingerprint"] == finished.log.fingerprint
    assert json.loads((tmp_path / "run/log.json").read_text()) == {"data": folder}
    assert not (tmp_path / "run/lease.json").exists()
    for stage, record in enumerate(run.records, start=1):
        assert record.block == finished.log.block(stage).name == f"{stage:04d}"
        written = [layout.checkpoint(stage), layout.checkpoint_rows(stage, 0, 0)]
        written += [layout.checkpoint_dense(stage), layout.memory(stage)]
        assert [stamp.path for stamp in record.files] == written
        run.verify(stage)
        assert record.metrics.block_rows == finished.log.block(stage).rows
        assert record.metrics.seconds.train > 0 and record.metrics.probe is None
    assert not diet_ray.distill(folder, str(tmp_path / "run"), SMALL, lines.append, probe_seeds=0).stage - 2
    assert len(lines) == 2


def test_the_training_of_a_block_is_timed(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, stamp = iter([10.0, 12.5]), (FileStamp("reference", 1, "r"),)

    class Trainer:
        def train(self, stage: int) -> tuple[tuple[FileStamp, ...], float]:
            return stamp, float(stage)

    monkeypatch.setattr(local_module.time, "perf_counter", lambda: next(readings))
    block = finished.log.block(2)
    trained = local_module._trained(Folder.at(str(tmp_path)), 2, block, lambda: Trainer().train(2))
    assert trained == TrainedBlock(block, stamp, loss=2.0, seconds=2.5)


def test_a_label_group_that_a_block_lacks_is_in_its_record(finished: Finished, tmp_path: Path) -> None:
    """A group of the first block that the second's manifest does not name."""
    shutil.copytree(finished.log.folder.root, tmp_path / "log")
    manifest = json.loads((tmp_path / "log/prepared.json").read_text())
    assert set(manifest["blocks"][0]["label_groups"]) == {"0", "1", "2", "3"}
    del manifest["blocks"][1]["label_groups"]["3"]
    (tmp_path / "log/prepared.json").write_text(json.dumps(manifest))
    records = diet_ray.distill(str(tmp_path / "log"), str(tmp_path / "run"), SMALL, probe_seeds=0).records
    assert [record.metrics.missing_label_groups for record in records] == [(), ("click+like",)]


def test_without_a_config_the_defaults_hold(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    def stop(state: RunState) -> None:
        raise StoppedError

    monkeypatch.setattr(local_module, "ReferenceTrainer", stop)
    with pytest.raises(StoppedError):
        diet_ray.distill(finished.log.folder.root, str(tmp_path / "run"))
    assert Run.read(str(tmp_path / "run")).run_config == RunConfig()
    assert not (tmp_path / "run/lease.json").exists()


def test_metrics_of_a_memory_count_its_rows() -> None:
    stored = memory(7, 1)._replace(
        stage_N=torch.tensor([1, 2, 2, 1, 2, 2, 2]), group_N=torch.tensor([3, 0, 0, 0, 1, 1, 3])
    )
    metrics = MemoryMetrics.of(stored, memory(4, 2), (0.5, 0.25), 77)
    assert metrics == MemoryMetrics(
        rows=7,
        rows_before=4,
        rows_by_stage={1: 2, 2: 5},
        rows_by_label_group={0: 3, 1: 2, 3: 2},
        outer_loss=(0.5, 0.25),
        peak_bytes=77,
    )
    assert MemoryMetrics.of(stored, None, (), 1).rows_before is None


def streamed() -> StageMetrics:
    counts = {"late": 3, "files_quarantined": 1}
    intake = IntakeState(taken=(("a.csv", 0, 9, True),), watermark=99, grown=("user",), counts=counts)
    stream = StreamMetrics(
        **dict(intake), closed_at=5.0, seconds_to_read=1.5, seconds_to_commit=2.5, rows_waiting=7, unread=4
    )
    return stage_metrics().model_copy(update={"stream": stream})


def test_the_intake_of_a_stream_says_what_was_set_aside_and_how_far_it_is() -> None:
    stream = streamed().stream
    assert stream and stream.counts == {"late": 3, "files_quarantined": 1}
    assert stream.watermark == 99 and stream.intake.grown == ("user",)


@pytest.mark.parametrize("metrics", [stage_metrics(3), streamed()])
def test_metrics_read_back_as_they_were_written(metrics: StageMetrics) -> None:
    plain = json.loads(json.dumps(metrics.plain()))
    assert "probe" not in plain and StageMetrics.parse(plain, 2) == metrics
    assert plain["memory"]["rows_by_stage"] == {"1": metrics.memory.rows}


def as_version_0_1(metrics: StageMetrics) -> dict[str, Any]:
    """The same metrics with the keys of format 1."""
    plain = metrics.plain()
    plain["seconds"]["distil"] = plain["seconds"].pop("distill")
    if stream := plain.pop("stream", None):
        plain["lag"] = {"rows_read": stream.pop("rows_waiting"), "not_read": stream.pop("unread")}
        plain["stream"] = {key: stream[key] for key in ("taken", "watermark", "grown")}
        plain["stream"]["types"] = {"user": "int64"}
        plain["stream"]["counts"] = {"late": 3, "files set aside": 1}
        plain |= {key: value for key, value in stream.items() if key not in IntakeState.model_fields}
    return plain


@pytest.mark.parametrize("metrics", [stage_metrics(3), streamed()])
def test_metrics_of_version_0_1_are_read_as_those_of_today(metrics: StageMetrics) -> None:
    old = as_version_0_1(metrics)
    before = json.dumps(old)
    assert StageMetrics.parse(old, 1) == metrics
    assert json.dumps(old) == before  # what was read is left as it was
    with pytest.raises(ValueError, match="distil"):
        StageMetrics.parse(old, 2)


def record(stage: int = 1, previous: str = "", config: str = "c") -> StageRecord:
    stamps = (FileStamp("reference/1", 3, "r"), FileStamp("memory/1", 4, "m"))
    return StageRecord(stage, "block", previous, config, stamps, stage_metrics())


def test_a_record_reads_back_and_names_its_memory_and_checkpoint() -> None:
    assert StageRecord.parse(record().content(), "path") == record()
    plain = json.loads(record().content())
    assert plain["format"] == FORMAT == 2 and plain["files"][1] == {
        "path": "memory/1",
        "size": 4,
        "sha256": "m",
    }
    assert record().content().endswith(b"}\n") and list(plain) == sorted(plain)
    assert record().memory_stamp().sha256 == "m" and record().checkpoint_stamp().sha256 == "r"
    with pytest.raises(RunError, match="stage 1 has no file in memory/"):
        record()._replace(files=record().files[:1]).memory_stamp()


def test_a_record_of_version_0_1_is_read() -> None:
    plain = json.loads(record().content())
    plain |= {"format": 1, "metrics": as_version_0_1(stage_metrics())}
    assert StageRecord.parse(json.dumps(plain).encode(), "path") == record()


def test_each_record_names_the_checksums_of_the_one_before_and_of_the_config(tmp_path: Path) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    for stage in (1, 2, 3):
        stamp = run.folder.write(layout.memory(stage), b"%d" % stage)
        run.commit(f"block {stage}", (stamp,), stage_metrics(stage))
    records = [(tmp_path / layout.record(stage)).read_bytes() for stage in (1, 2, 3)]
    config = sha256((tmp_path / "config.yaml").read_bytes())
    plain = [json.loads(content) for content in records]
    assert [p["previous"] for p in plain] == ["", sha256(records[0]), sha256(records[1])]
    assert {p["config"] for p in plain} == {config} == {run.config_sha256}
    assert [p["stage"] for p in plain] == [1, 2, 3]
    again = Run.open(str(tmp_path), {"seed": 0})
    stamp = again.folder.write(layout.memory(4), b"4")
    fourth = again.commit("block 4", (stamp,), stage_metrics())
    assert (fourth.stage, fourth.previous) == (4, sha256(records[2]))
    assert Run.read(str(tmp_path)).records == again.records


def test_a_changed_config_breaks_the_chain(tmp_path: Path) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    run.commit("0001", (run.folder.write(layout.memory(1), b"1"),), stage_metrics())
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(RunError, match=r"stages/0001\.json does not follow the record and config before it"):
        Run.read(str(tmp_path))


@pytest.mark.parametrize(("content", "says"), [("- 1", "is not a mapping"), ("{", "is not YAML")])
def test_a_config_that_is_none_is_named(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(RunError, match=rf"config\.yaml {says}"):
        Run.read(str(tmp_path))


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run: it has no config\.yaml"):
        Run.read(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_config_is_kept_as_it_was_first_given(tmp_path: Path) -> None:
    config = {"seed": 0, "a": (1, 2), "b": {"c": 1}}
    Run.open(str(tmp_path), config)
    before = (tmp_path / "config.yaml").read_bytes()
    assert yaml.safe_load(before) == {"seed": 0, "a": [1, 2], "b": {"c": 1}}
    Run.open(str(tmp_path), config)
    assert (tmp_path / "config.yaml").read_bytes() == before
    # The same settings in another order have the same file, and so the same checksum.
    other = Run.open(str(tmp_path / "other"), dict(reversed(config.items())))
    assert other.config_sha256 == sha256(before)


def test_differences_name_every_key_with_both_values() -> None:
    stored = {"a": 1, "b": {"c": 2, "d": 3}, "e": 5, "g": {"h": 1}}
    requested = {"a": 1, "b": {"c": 4, "d": 3}, "f": 6, "g": 7}
    assert differences(stored, requested).split("; ") == [
        "b.c: the run has 2, this command asks for 4",
        "e: the run has 5, this command asks for None",
        "f: the run has None, this command asks for 6",
        "g: the run has {'h': 1}, this command asks for 7",
    ]
    assert differences(stored, stored) == ""


def test_files_of_an_unfinished_stage_are_removed_from_every_folder(tmp_path: Path) -> None:
    run = with_files(tmp_path, {"seed": 0}, 2)
    for part in layout.STAGE_FOLDERS:
        for name in ("0003/file", "0010/deep/file", "notes/file"):
            run.folder.write(f"{part}/{name}", b"half done")
    Run.open(str(tmp_path), {"seed": 0})
    for part in layout.STAGE_FOLDERS:
        names = {path.name for path in (tmp_path / part).iterdir()} - {"latest.json"}
        assert names == {"0001", "0002", "notes"}


@pytest.mark.parametrize("part", layout.STAGE_FOLDERS)
def test_a_damaged_file_of_the_newest_stage_and_any_vocabulary_is_named(tmp_path: Path, part: str) -> None:
    with_files(tmp_path, {"seed": 0}, 3)
    damaged = tmp_path / layout.stage_folder(part, 1) / "file"
    damaged.write_bytes(b"other")
    if part == "vocabulary":
        with pytest.raises(RunError, match=r"stage 1 is damaged: .*vocabulary/0001/file"):
            Run.open(str(tmp_path), {"seed": 0})
    else:
        Run.open(str(tmp_path), {"seed": 0})  # old stages are not looked at
    with pytest.raises(RunError, match=f"stage 1 is damaged: .*{part}/0001/file"):
        Run.read(str(tmp_path)).verify(1)
    damaged.write_bytes(f"{part} 1".encode())
    (tmp_path / layout.stage_folder(part, 3) / "file").unlink()
    with pytest.raises(RunError, match=f"stage 3 is damaged: .*{part}/0003/file"):
        Run.open(str(tmp_path), {"seed": 0})


STREAM = {"seed": 0, "stream": {"block_rows": 10, "keep_last": 2, "keep_every": 0}}


@pytest.mark.parametrize("part", layout.STAGE_FOLDERS)
@pytest.mark.parametrize("stage", [1, 2])
def test_a_stream_does_not_miss_what_its_policy_removes(tmp_path: Path, part: str, stage: int) -> None:
    """Of three stages the last two are kept; ids of events may go at any time."""
    run = with_files(tmp_path, STREAM, 3)
    shutil.rmtree(tmp_path / layout.stage_folder(part, stage))
    if part == "events" or (part in ("reference", "memory", "blocks") and stage == 1):
        run.verify(stage)
    else:
        with pytest.raises(RunError, match=f"stage {stage} is damaged"):
            run.verify(stage)


def test_what_a_policy_may_remove_is_still_checked_where_it_is(tmp_path: Path) -> None:
    run = with_files(tmp_path, STREAM, 3)
    (tmp_path / layout.stage_folder("memory", 1) / "file").write_bytes(b"other")
    with pytest.raises(RunError, match=r"stage 1 is damaged: .*memory/0001/file"):
        run.verify(1)


def test_a_run_of_a_prepared_log_misses_every_file(tmp_path: Path) -> None:
    run = with_files(tmp_path, {"seed": 0}, 3)
    shutil.rmtree(tmp_path / layout.stage_folder("events", 1))
    with pytest.raises(RunError, match=r"stage 1 is damaged: .*events/0001/file"):
        run.verify(1)


def test_the_newest_memory_is_named_after_each_commit(tmp_path: Path) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    assert not (tmp_path / "memory/latest.json").exists()
    for stage in (1, 2):
        stamp = run.folder.write(layout.memory(stage), b"%d" % stage)
        run.commit("0001", (stamp,), stage_metrics())
        assert run.folder.read_json("memory/latest.json") == {"stage": stage, **stamp._asdict()}
    changed = (tmp_path / "memory/latest.json").stat().st_mtime_ns
    Run.open(str(tmp_path), {"seed": 0})
    assert (tmp_path / "memory/latest.json").stat().st_mtime_ns == changed
    run.folder.write_json("memory/latest.json", {"stage": 1})
    Run.open(str(tmp_path), {"seed": 0})
    assert run.folder.read_json("memory/latest.json")["stage"] == 2


def test_a_memory_that_was_just_removed_is_looked_for_again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a stream sweeps the stage between the two reads; after three times it is an error."""
    shutil.copytree(finished.run, tmp_path / "run")
    folder = Folder.at(str(tmp_path / "run"))
    newest = folder.read_json("memory/latest.json")
    stages = iter([1, 2])
    stamps = {
        1: FileStamp("memory/0009/memory.parquet", 1, ""),
        2: FileStamp(newest["path"], newest["size"], newest["sha256"]),
    }
    monkeypatch.setattr(published_module, "_memory_file", lambda *_: (folder, stamps[next(stages)]))
    assert diet_ray.load_memory(str(tmp_path / "run")).num_rows == 60
    reads = iter(range(10))
    monkeypatch.setattr(published_module, "_memory_file", lambda *_: (folder, stamps[1 + 0 * next(reads)]))
    with pytest.raises(DataError, match="does not exist"):
        diet_ray.load_memory(str(tmp_path / "run"))
    assert next(reads) == 3


def test_a_memory_of_a_stage_is_read_by_number(finished: Finished) -> None:
    for stage, rows in ((1, 32), (2, 60), (None, 60)):
        assert diet_ray.load_memory(str(finished.run), stage).num_rows == rows
    for stage in (0, 3, -1):
        with pytest.raises(RunError, match=f"no memory of stage {stage}; it has 2 stages"):
            diet_ray.load_memory(str(finished.run), stage)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    run.commit("0001", (run.folder.write(layout.memory(1), b"not parquet"),), stage_metrics())
    with pytest.raises(DataError, match=r"memory/0001/memory\.parquet is not a memory"):
        diet_ray.load_memory(str(tmp_path))


def test_a_clock_measures_from_lap_to_lap(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([10.0, 11.0, 14.0, 14.5])
    monkeypatch.setattr("diet_ray.runs.stage.time.perf_counter", lambda: next(readings))
    clock = Clock()
    assert [clock.lap() for _ in range(3)] == [1.0, 3.0, 0.5]


def test_a_lease_says_who_has_it_and_how_often_it_beats(tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path))
    assert holder_of(folder) == "nobody"
    with Lease(folder) as lease:
        stored = folder.read_json("lease.json")
        assert stored == {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": started_at(os.getpid()),
            "token": lease.token,
            "beat": 0,
            "seconds": 30.0,
        }
        assert holder_of(folder) == f"process {os.getpid()} on {socket.gethostname()}"
        folder.fs.rm(folder / "lease.json")
        with pytest.raises(RunError, match="taken over by a process that removed the lease"):
            lease.check()
        lease._write()
        with pytest.raises(RunError, match="was taken over by a process that removed the lease"):
            lease.check()  # once lost it stays lost
    assert holder_of(folder) == "nobody"


def test_a_lease_is_renewed_three_times_in_its_seconds(tmp_path: Path) -> None:
    """The thread waits that long, writes the next beat, and goes on after a failure of the storage."""
    lease = Lease(Folder.at(str(tmp_path)), seconds=6.0)
    lease._write()
    waits: list[float] = []
    failures = iter([False, True, False, False])
    write = lease._write

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 4

    def sometimes() -> None:
        if next(failures):
            raise OSError("no network")
        write()

    lease._released.wait = wait  # type: ignore[method-assign, assignment]
    lease._write = sometimes  # type: ignore[method-assign]
    lease._renew()
    assert waits == [2.0] * 5 and lease.folder.read_json("lease.json")["beat"] == 4
    lease.folder.write_json("lease.json", {**lease.folder.read_json("lease.json"), "token": "other"})
    waits.clear()
    lease._renew()
    assert len(waits) == 1 and lease.lost_to.startswith("process")


HERE = socket.gethostname()


# A process of this machine is looked up; where it has no /proc, there is no start by which to know it.
@pytest.mark.parametrize(("host", "started"), [("elsewhere", 1), ("elsewhere", None), (HERE, None)])
@pytest.mark.parametrize(("beats", "alive"), [((0, 0, 0, 0), False), ((0, 0, 1), True), ((0, None), False)])
def test_a_holder_that_cannot_be_looked_up_is_watched_for_its_seconds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    beats: tuple[int | None, ...],
    alive: bool,
    host: str,
    started: int | None,
) -> None:
    lease = Lease(Folder.at(str(tmp_path)))
    other = {"token": "t", "host": host, "pid": 2**22 + 1, "started": started, "beat": 0, "seconds": 12.0}
    now, readings = [0.0], iter(beats)
    monkeypatch.setattr(lease_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lease_module.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))

    def read(folder: Folder) -> dict[str, Any] | None:
        beat = next(readings, 0)
        return None if beat is None else {**other, "beat": beat}

    monkeypatch.setattr(lease_module, "_read", read)
    assert lease._alive(other) is alive
    # Looked at every two seconds, a sixth of the time it has; a dead one for all of it.
    assert now[0] == {(0, 0, 0, 0): 12.0, (0, 0, 1): 6.0, (0, None): 4.0}[beats]


def test_the_start_of_a_process_is_its_own(tmp_path: Path) -> None:
    stat = Path(f"/proc/{os.getpid()}/stat").read_text()
    after_name = stat[stat.rindex(")") + 2 :].split()
    assert started_at(os.getpid()) == int(after_name[22 - 3])  # field 22; fields 1 and 2 are cut away
    assert started_at(2**22 + 1) is None


def test_a_memory_of_another_log_is_not_read(finished: Finished, tmp_path: Path) -> None:
    schema = memory_schema(finished.log, SMALL)._replace(fields=("a", "b", "c"), tasks=("x", "y"))
    state = RunState(finished.log, Folder.at(str(tmp_path)), SMALL)
    state.folder.write_parquet("rows.parquet", to_arrow(memory(3, 1), schema, "r"))
    with pytest.raises(RunError, match="another schema: fields"):
        state.stored_rows("rows.parquet")

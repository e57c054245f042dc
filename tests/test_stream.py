"""A stream from files to memories: stages, what is kept, what stops it, and kills at any moment."""

import json
import random
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import yaml

from diet_ray import load_memory
from diet_ray.errors import DataError, RunError
from diet_ray.lease import Lease
from diet_ray.log.dataset import Block
from diet_ray.log.stream.config import StreamConfig
from diet_ray.runs.run import Run
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.manifest import checkpoint_stages
from diet_ray.training.metrics import Scores
from pipelines.options.stream import Stream, for_small_blocks
from pipelines.runtime.micro_blocks import MicroBlocks
from pipelines.runtime.recipe import Recipe
from pipelines.runtime.stream_guard import StreamGuard, auc_deviation
from pipelines.status import status
from pipelines.stream import stream
from tests.stream_log import ROWS, events, finish, kill_when, publish, publish_all, start, write_log
from tests.tiny_run import TINY

# Events are swept once no row in time can repeat them: with no row too late, all of them stay to be counted.
KEEP_ALL = ("--stream.keep-every=1", "--stream.lateness=1e9")
SMALL = StreamConfig(block_rows=500, min_rows=2, keep_last=2, probe_every=3)


def asked(folder: Path, **changed: Any) -> Stream:
    given = {
        "dataset": str(folder / "schema.yaml"),
        "source": str(folder / "in"),
        "run": str(folder / "run"),
        "until_idle": 0.3,
        "poll": 0.05,
        "stream": SMALL,
        "settings": Recipe.model_validate(TINY.model_dump()),
    }
    return Stream(**{**given, **changed})


@pytest.fixture
def log(tmp_path: Path) -> pa.Table:
    return write_log(tmp_path)


def test_files_become_memories_and_old_stages_are_swept(
    ray_here: None, tmp_path: Path, log: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_all(tmp_path, log.slice(0, 1700), 3)
    run = stream(asked(tmp_path, json_log=True))
    assert [record.metrics.block_rows for record in run.records] == [500, 500, 500, 200]
    assert load_memory(str(tmp_path / "run")).num_rows == run.records[-1].metrics.memory.rows
    kept = {int(folder.name) for folder in (tmp_path / "run/reference").iterdir()}
    assert kept == checkpoint_stages(run.folder, 3) | checkpoint_stages(run.folder, 4)
    for part in ("memory", "blocks"):
        assert sorted(p.name for p in (tmp_path / "run" / part).iterdir() if p.is_dir()) == ["0003", "0004"]
    assert len(list((tmp_path / "run/vocabulary").iterdir())) >= 1
    assert list((tmp_path / "run/tensorboard").glob("events*"))
    for stage in (3, 4):
        run.verify(stage)
    run.verify(1)  # what was swept by policy is not damage
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["stage"] for line in told] == [1, 2, 3, 4]
    assert 0 < told[-1]["progressive_auc"] < 1 and told[-1]["rows_per_second"] > 0
    assert told[0]["probe_auc"] is None and told[0]["el2n_drift"] is None
    assert told[3]["probe_stage"] == 3 and 0 < told[3]["probe_auc"] < 1
    assert told[0]["rows_waiting"] + told[0]["unread"] > 0  # more had arrived
    assert told[3]["rows_waiting"] == told[3]["unread"] == 0
    hardness = [line["el2n"] for line in told]
    assert told[3]["el2n_drift"] == pytest.approx(hardness[3] - sum(hardness[:3]) / 3)
    assert abs(told[3]["label_rates_drift"]["is_click"]) < 0.5
    found = status(Run.read(str(tmp_path / "run")))
    assert found["rows_in_all"] == 1700 and found["written_by"] == "nobody"
    assert set(found["label_rates"]) == {"is_click", "long_view", "is_like"}
    # More arrives: the stream goes on after what it has.
    publish(tmp_path, "later.parquet", log.slice(1700, 500))
    again = stream(asked(tmp_path))
    assert again.stage == 5 and events(tmp_path / "run")[-1]


def test_a_bad_file_stops_the_stream_keeps_what_is_committed_and_goes_on_when_it_is_gone(
    ray_here: None, tmp_path: Path, log: pa.Table
) -> None:
    schema = yaml.safe_load((tmp_path / "schema.yaml").read_text())
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump({**schema, "malformed": "error"}))
    publish(tmp_path, "0.parquet", log.slice(0, 500))
    (tmp_path / "in/1.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"1\.parquet cannot be read"):
        stream(asked(tmp_path))
    memory = (tmp_path / "run/memory/0001/memory.parquet").read_bytes()
    assert Run.read(str(tmp_path / "run")).stage == 1 and not (tmp_path / "run/lease.json").exists()
    (tmp_path / "in/1.parquet").unlink()
    publish(tmp_path, "2.parquet", log.slice(500, 500))
    assert stream(asked(tmp_path)).stage == 2
    assert (tmp_path / "run/memory/0001/memory.parquet").read_bytes() == memory


@pytest.mark.long
def test_a_second_writer_and_another_config_are_refused(
    ray_here: None, tmp_path: Path, log: pa.Table
) -> None:
    publish(tmp_path, "0.parquet", log.slice(0, 500))
    with (
        Lease(Folder.at(str(tmp_path / "run"))),
        pytest.raises(RunError, match="is being written by process"),
    ):
        stream(asked(tmp_path))
    stream(asked(tmp_path))
    with pytest.raises(RunError, match=r"stream\.block_rows: the run has 500, this command asks for 400"):
        stream(asked(tmp_path, stream=StreamConfig(block_rows=400, min_rows=2)))
    # What only watches may change, and what becomes of malformed rows.
    schema = yaml.safe_load((tmp_path / "schema.yaml").read_text())
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump({**schema, "malformed": "error"}))
    publish(tmp_path, "1.parquet", log.slice(500, 500))
    changed = SMALL.model_copy(update={"probe_every": 2, "max_fall": 0.9})
    probed = stream(asked(tmp_path, stream=changed)).records[1].metrics
    assert (
        probed.probe is not None and probed.probe_newest is not None and probed.probe != probed.probe_newest
    )


@pytest.mark.long
def test_a_skipped_block_is_not_learned_and_not_lost(ray_here: None, tmp_path: Path, log: pa.Table) -> None:
    publish_all(tmp_path, log.slice(0, 1000), 2)
    run = stream(asked(tmp_path, skip_block=True))
    assert run.stage == 1 and run.records[0].metrics.stream.counts["skipped"] == 500
    assert sum(1 for _ in (tmp_path / "run/quarantine/0001").glob("skipped-*")) >= 1
    assert len(events(tmp_path / "run")) == 500


class FakeReference:
    """Answers `progressive.remote` with the given AUC."""

    def __init__(self, *aucs: float) -> None:
        self.aucs = list(aucs)
        self.progressive = self

    def remote(self, stage: int) -> Any:
        return ray.put(Scores(self.aucs.pop(0), 0.5, {}))


def test_a_reference_that_has_degraded_stops_the_stream(ray_here: None, tmp_path: Path) -> None:
    run = Run.open(str(tmp_path), {"seed": 0})
    block = Block("0009", 10, 0, 1, (1,), {0: 10}, ())
    guard = StreamGuard(run, StreamConfig(max_fall=0.05))
    reference = FakeReference(0.7, 0.72, 0.7, 0.69, 0.7, 0.68, float("nan"), 0.6)
    assert guard.examine(reference, block, 1) is None  # nothing is known before the first block
    for stage in range(2, 8):
        assert guard.examine(reference, block, stage) is not None
    assert guard.examine(reference, block, 8) is None  # a block of one class says nothing
    with pytest.raises(DataError, match=r"block 0009 is 0\.6000, .* before is 0\.6980.*--skip-block"):
        guard.examine(reference, block, 9)


def test_a_small_block_may_fall_by_chance() -> None:
    assert auc_deviation({0: 50, 1: 50}) == pytest.approx(0.058, abs=0.001)  # sqrt(101 / (12 * 2500))
    assert auc_deviation({2: 50, 3: 50}) == auc_deviation({0: 50, 1: 50})  # the other task has one label
    assert auc_deviation({0: 10}) == 0


def test_a_small_block_has_a_row_of_each_label_group_in_the_memory(tmp_path: Path) -> None:
    source = MicroBlocks.__new__(MicroBlocks)
    source.stream, source.config, source.history_rows = SMALL, TINY, 0
    block = Block("0001", 9, 0, 1, (1,), {group: 1 for group in range(8)}, ())
    assert source.budget(block, 1, old_rows=0).new_rows == 8


def test_few_outer_iterations_unless_the_recipe_says_how_many() -> None:
    assert for_small_blocks(Recipe()).method.outer.iterations == 4
    assert Recipe().method.outer.iterations == 40
    told = Recipe.model_validate({"method": {"outer": {"iterations": 7}}})
    assert for_small_blocks(told).method.outer.iterations == 7


def test_status_says_what_it_cannot_tell(run_dir: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a stream"):
        status(Run.read(run_dir))
    Run.open(str(tmp_path), {"stream": {}})
    with pytest.raises(RunError, match="no committed stage yet; written by nobody"):
        status(Run.read(str(tmp_path)))


def memories(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("memory/*/memory.parquet"))}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_at_random_moments_the_stream_ends_with_the_same_memory_and_every_event_once(
    tmp_path: Path,
) -> None:
    log = write_log(tmp_path)
    publish_all(tmp_path, log, 7)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(tmp_path, whole, *KEEP_ALL), tmp_path)
    draw, seen, over = random.Random(0), [], threading.Event()

    def read_on() -> None:
        while not over.is_set():
            if (killed / "memory/latest.json").exists():
                seen.append(load_memory(str(killed)).num_rows)

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        for stage in (1, 2, 4):
            pause = threading.Event()

            def reached(stage: int = stage, pause: threading.Event = pause) -> bool:
                there = (killed / f"blocks/{stage:04d}").exists() or (
                    killed / f"stages/{stage:04d}.json"
                ).exists()
                return there and not pause.wait(draw.random())

            kill_when(start(tmp_path, killed, *KEEP_ALL), tmp_path, reached)
        finish(start(tmp_path, killed, *KEEP_ALL), tmp_path)
    finally:
        over.set()
        reader.join()
    assert memories(killed) == memories(whole) and len(memories(whole)) == 6
    assert sorted(events(killed)) == sorted(f"e{n}" for n in range(ROWS))
    assert seen and seen == sorted(seen)

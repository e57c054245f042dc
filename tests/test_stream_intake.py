"""Files of a directory as micro-blocks: what is taken, set aside, dropped, and taken again after a crash."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import DataError
from diet_ray.log.schema import LogSchema, parse_schema
from diet_ray.log.stream.arrivals import DirectoryArrivals
from diet_ray.log.stream.config import StreamConfig
from diet_ray.log.stream.intake import Closed, Intake
from diet_ray.log.stream.log import StreamLog
from diet_ray.storage import Folder

HOUR = 3600


def schema(**changed: Any) -> LogSchema:
    plain = {
        "name": "clicks",
        "time": {"column": "at", "unit": "s"},
        "fields": ["user", "item"],
        "tasks": ["clicked"],
        "event_id": "event",
        "malformed": "quarantine",
    }
    return parse_schema({**plain, **changed}, "test")


def write(folder: Path, name: str, first: int, count: int, **columns: Any) -> None:
    """A file of events first, first + 1, ..., one per second; published by rename."""
    number = np.arange(first, first + count)
    table = {
        "at": number,
        "user": number % 7,
        "item": number % 5,
        "clicked": number % 2,
        "event": [f"e{n}" for n in number],
        **columns,
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / f".{name}")
    (folder / f".{name}").rename(folder / name)


class Stream:
    """An intake with what it has committed, which a crash leaves."""

    def __init__(self, path: Path, config: StreamConfig | None = None, **changed: Any) -> None:
        self.source, self.folder = path / "in", Folder.at(str(path / "run"))
        self.source.mkdir(parents=True, exist_ok=True)
        self.schema, self.config = schema(**changed), config or StreamConfig(block_rows=10, min_rows=2)
        self.states: list[dict[str, Any]] = []
        self.log = StreamLog.create(self.folder, self.schema)
        self.restart()

    def restart(self) -> None:
        self.intake = Intake(
            self.folder,
            DirectoryArrivals(str(self.source), self.schema),
            self.schema,
            self.config,
            self.states,
        )

    def close(self, *, whole: bool = False, commit: bool = True) -> Closed | None:
        self.intake.poll()
        closed = self.intake.close(len(self.states) + 1, whole=whole)
        if closed and commit:
            self.states.append(closed.state)
        return closed

    def all(self) -> list[Closed]:
        found = []
        while closed := self.close():
            found.append(closed)
        if closed := self.close(whole=True):
            found.append(closed)
        return found

    def events(self, stage: int) -> list[str]:
        return list(self.folder.read_parquet(f"events/{stage:04d}/events.parquet")["event id"].to_pylist())

    def aside(self, why: str) -> list[dict[str, Any]]:
        files = sorted(Path(self.folder.root).glob(f"quarantine/*/{why}-*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]


def taken(closed: Closed) -> list[tuple[Any, ...]]:
    return [tuple(part) for part in closed.state.taken]


def test_blocks_are_cut_after_a_number_of_rows_within_a_file_and_across(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 25)
    write(stream.source, "b.parquet", 25, 8)
    closed = stream.all()
    assert [c.block.rows for c in closed] == [10, 10, 10, 3]
    assert taken(closed[1]) == [("a.parquet", 10, 20, False)]
    assert taken(closed[2]) == [("a.parquet", 20, 25, True), ("b.parquet", 0, 5, False)]
    events = [event for stage in range(1, 5) for event in stream.events(stage)]
    assert sorted(events, key=lambda e: int(e[1:])) == [f"e{n}" for n in range(33)]


def test_too_few_rows_wait_unless_the_block_is_closed_by_time(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    assert stream.close() is None
    write(stream.source, "a.parquet", 0, 9)
    assert stream.close() is None and stream.intake.rows == 9
    closed = stream.close(whole=True)
    assert closed and closed.block.rows == 9


def test_an_id_keeps_its_row_and_blocks_read_back(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 30)
    closed = stream.all()
    rows: dict[int, int] = {}
    for stage, each in enumerate(closed, start=1):
        stored = pq.read_table(Path(stream.folder.root) / f"blocks/{stage:04d}/part-00000.parquet")
        for ts, row in zip(stored["ts"].to_pylist(), stored["user"].to_pylist(), strict=True):
            assert rows.setdefault(ts // 1000 % 7, row) == row and row > 0
        block = stream.log.block(stage)
        assert block == each.block
        assert (
            sum(chunk.rows for chunk in stream.log.chunks(block))
            == block.rows
            == sum(block.label_groups.values())
        )
    assert closed[-1].block.table_rows == (8, 6)


@pytest.mark.parametrize("crash_after", [0, 1, 2])
def test_after_a_crash_the_same_blocks_are_taken(tmp_path: Path, crash_after: int) -> None:
    whole, crashed = Stream(tmp_path / "whole"), Stream(tmp_path / "crashed")
    for stream in (whole, crashed):
        write(stream.source, "a.parquet", 0, 25)
        write(stream.source, "b.parquet", 20, 20)  # five of them known
    wanted = whole.all()
    for _ in range(crash_after):
        crashed.close()
    crashed.close(commit=False)
    crashed.restart()
    crashed.all()
    assert crashed.states == whole.states
    for part in ("blocks", "vocabulary", "events"):
        for file in sorted((tmp_path / "whole/run" / part).rglob("*.*")):
            other = tmp_path / "crashed/run" / file.relative_to(tmp_path / "whole/run")
            assert other.read_bytes() == file.read_bytes(), file
    assert [c.block.rows for c in wanted] == [10, 10, 5, 10, 5]


def test_no_event_is_lost_or_doubled(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 25)
    write(stream.source, "again.parquet", 5, 25)  # 20 of a's, and five new ones
    write(stream.source, "c.parquet", 30, 6)
    stream.all()
    events = [event for stage in range(1, len(stream.states) + 1) for event in stream.events(stage)]
    assert sorted(events) == sorted(f"e{n}" for n in range(36))
    assert sum(state.counts.get("duplicates", 0) for state in stream.states) == 20


def test_a_whole_file_of_doubles_is_noted_with_the_next_block(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 10)
    write(stream.source, "b.parquet", 0, 10)
    write(stream.source, "c.parquet", 10, 10)
    first, second = stream.all()
    assert taken(first) == [("a.parquet", 0, 10, True)]
    assert taken(second) == [("b.parquet", 0, 10, True), ("c.parquet", 0, 10, True)]
    assert second.state.counts["duplicates"] == 10


def test_rows_that_are_too_late_are_counted_and_kept_aside(tmp_path: Path) -> None:
    stream = Stream(tmp_path, StreamConfig(block_rows=10, min_rows=2, lateness=HOUR))
    write(stream.source, "a.parquet", 10 * HOUR, 10)
    within, beyond = 9 * HOUR + 60, 8 * HOUR
    write(stream.source, "b.parquet", within, 6)
    write(stream.source, "c.parquet", beyond, 4)
    closed = stream.all()
    assert [c.block.rows for c in closed] == [10, 6]
    assert closed[1].state.counts == {"late": 4, "duplicates": 0, "ahead": 0, "malformed": 0}
    assert [row["event id"] for row in stream.aside("late")] == [f"e{beyond + n}" for n in range(4)]
    assert closed[1].state.watermark == closed[0].state.watermark  # time does not go back


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PAR1 cut short", "cannot be read"),
        (None, "has no column item"),
    ],
)
def test_a_file_that_cannot_be_read_is_set_aside_whole_and_the_stream_goes_on(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 10)
    if content is None:
        pq.write_table(
            pa.table({"at": [1], "user": [1], "clicked": [1], "event": ["x"]}), stream.source / "b.parquet"
        )
    else:
        (stream.source / "b.parquet").write_bytes(content)
    write(stream.source, "c.parquet", 10, 10)
    closed = stream.all()
    assert [c.block.rows for c in closed] == [10, 10]
    assert closed[1].state.counts["files_quarantined"] == 1
    (row,) = stream.aside("malformed")
    assert row["file"] == "b.parquet" and reason in row["reason"]


@pytest.mark.parametrize("as_type", [str, float, "Int64"])
def test_a_file_may_store_its_ids_in_another_type(tmp_path: Path, as_type: Any) -> None:
    stream = Stream(tmp_path, malformed="error")
    write(stream.source, "a.parquet", 0, 10)
    stream.close()
    stream.restart()
    write(stream.source, "b.parquet", 10, 10, user=pd.Series(np.arange(10, 20) % 7).astype(as_type))
    closed = stream.close()
    assert closed and closed.state.grown == () and closed.block.table_rows == (8, 6)


def test_malformed_rows_go_with_the_block_they_lie_in(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 24, clicked=[7 if n in (3, 15) else 1 for n in range(24)])
    closed = stream.all()
    assert [c.block.rows for c in closed] == [10, 10, 2]
    assert [c.state.counts["malformed"] for c in closed] == [1, 1, 0]
    assert [row["row"] for row in stream.aside("malformed")] == [4, 16]


def test_a_skipped_block_is_set_aside_and_counted(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 20)
    stream.intake.poll()
    assert stream.intake.skip() == 10
    closed = stream.close()
    assert closed and taken(closed) == [("a.parquet", 0, 10, False), ("a.parquet", 10, 20, True)]
    assert closed.state.counts["skipped"] == 10 and len(stream.aside("skipped")) == 10


def test_unfinished_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    for name in (".a.parquet", "_b.parquet", "c.parquet.tmp", "notes.txt"):
        (stream.source / name).write_bytes(b"x")
    assert stream.close(whole=True) is None and not stream.intake.counts


def test_without_event_ids_and_with_hashed_ids(tmp_path: Path) -> None:
    stream = Stream(tmp_path, event_id=None, encoder={"kind": "hashed", "buckets": 50})
    write(stream.source, "a.parquet", 0, 20)
    write(stream.source, "b.parquet", 0, 10, user=[f"u{n}" for n in range(10)])
    closed = stream.all()
    assert [c.block.rows for c in closed] == [10, 10, 10] and closed[0].block.table_rows == (51, 51)
    assert not pd.Series([c.state.grown for c in closed]).explode().notna().any()


def test_old_stages_are_kept_by_policy() -> None:
    config = StreamConfig(keep_last=2, keep_every=5)
    assert [stage for stage in range(1, 13) if config.keeps(stage, 12)] == [5, 10, 11, 12]
    assert [stage for stage in range(1, 6) if StreamConfig(keep_last=3).keeps(stage, 5)] == [3, 4, 5]


def test_a_stream_of_another_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    before = stream.folder.read("stream.json")
    with pytest.raises(
        DataError, match=r"was created with a different schema \(.+: the run has .+, this command asks for"
    ):
        StreamLog.create(stream.folder, schema(tasks=["user"], fields=["item"]))
    assert stream.folder.read("stream.json") == before
    assert StreamLog.create(stream.folder, schema()).fingerprint == stream.log.fingerprint


def test_rows_left_by_doubles_wait_for_a_block_and_are_not_lost(tmp_path: Path) -> None:
    stream = Stream(tmp_path, StreamConfig(block_rows=10, min_rows=5))
    write(stream.source, "a.parquet", 0, 10)
    write(stream.source, "b.parquet", 0, 9)
    write(stream.source, "c.parquet", 10, 1)  # the only new one of ten
    write(stream.source, "d.parquet", 10, 10)  # one of them is that one
    closed = stream.all()
    assert [c.block.rows for c in closed] == [10, 9]
    stream.restart()
    write(stream.source, "e.parquet", 20, 9)  # with the last row of d a block
    closed += stream.all()
    events = [event for stage in range(1, len(stream.states) + 1) for event in stream.events(stage)]
    assert sorted(events, key=lambda e: int(e[1:])) == [f"e{n}" for n in range(29)]


def test_a_row_from_the_future_does_not_make_all_others_late(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 10, at=[*range(9), 10**11])
    write(stream.source, "b.parquet", 10, 12)
    closed = stream.all()
    assert [c.block.rows for c in closed] == [9, 10, 2]
    assert [row["event id"] for row in stream.aside("ahead")] == ["e9"] and not stream.aside("late")


def test_an_error_of_the_system_does_not_condemn_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(tmp_path)
    write(stream.source, "a.parquet", 0, 10)

    def busy(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr("diet_ray.log.formats.columnar.pq.ParquetFile", busy)
        with pytest.raises(DataError, match="Too many open files"):
            stream.all()
    (closed,) = stream.all()
    assert closed.block.rows == 10 and "files_quarantined" not in closed.state.counts

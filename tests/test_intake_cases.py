"""What public bug reports of comparable tools describe: each taken in whole, or refused in one sentence."""

import json
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from diet_ray.errors import ConfigError, DataError
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.schema import load_schema
from diet_ray.log.stream.arrivals import DirectoryArrivals
from diet_ray.log.stream.config import StreamConfig
from diet_ray.log.stream.intake import Closed, Intake
from diet_ray.log.stream.messages import Message, message_pieces
from diet_ray.storage import Folder
from tests.small_log import BLOCKS, encoded, filled, prepared, quarantine, small_schema, write_table

EACH = range(10)


def in_every_block(values: list[Any]) -> list[Any]:
    """Column of a log in which each block has each of the values once."""
    return [value for value in values for _ in BLOCKS]


def rows(log: Any) -> dict[str, int]:
    return {name: block.rows for name, block in log.blocks.items()}


def test_large_ids_of_which_one_is_missing_keep_their_rows(tmp_path: Path) -> None:
    ids = [2**60 + n for n in EACH] + [None]
    columns = filled({"user": pa.array(in_every_block(ids), pa.int64())} | {"clicked": [0] * 55})
    log = prepared(tmp_path, small_schema(), {"a.parquet": columns})
    for table_rows, id_NF, _ in encoded(log).values():
        assert table_rows == (11,) and sorted(row for (row,) in id_NF) == list(range(11))


def test_ids_that_are_whole_here_and_floats_there_are_the_same(tmp_path: Path) -> None:
    columns = filled({"user": in_every_block(list(EACH))})
    january = {name: values[:25] for name, values in columns.items()}
    february = {name: values[25:] for name, values in columns.items()}
    february["user"] = pa.array([None, *february["user"][1:]], pa.float64())
    together = prepared(tmp_path / "a", small_schema(), {"1.parquet": january, "2.parquet": february})
    assert encoded(together)["test"][0] == (11,)
    wanted = {**columns, "user": [*columns["user"][:25], None, *columns["user"][26:]]}
    assert encoded(prepared(tmp_path / "b", small_schema(), {"a.csv": wanted})) == encoded(together)


def test_a_column_without_a_value_has_no_type_that_could_differ(tmp_path: Path) -> None:
    columns = filled({"user": in_every_block([1, 2, 3])})
    empty = filled({"user": pa.nulls(15)} | {"clicked": [0] * 15, "ts": columns["ts"]})
    log = prepared(tmp_path, small_schema(), {"a.parquet": columns, "b.parquet": empty})
    for table_rows, id_NF, _ in encoded(log).values():
        assert table_rows == (4,) and sorted(row for (row,) in id_NF) == [0, 0, 0, 1, 2, 3]


LOCAL = {"column": "ts", "zone": "Asia/Shanghai"}


def days(zone_change: str) -> dict[str, Any]:
    """Blocks of a day each, the third from the date on."""
    start = datetime.fromisoformat(zone_change) - timedelta(days=2)
    edges = [str((start + timedelta(days=n)).date()) for n in range(6)]
    cuts = [[a, b] for a, b in pairwise(edges)]
    return {"history": cuts[:2], "subsequent": cuts[2], "validation": cuts[3], "test": cuts[4]}


def hourly(start: str, hours: int, ending: str = "") -> list[str]:
    first = datetime.fromisoformat(start)
    return [f"{first + timedelta(hours=n)}{ending}" for n in range(hours)]


def test_times_with_and_without_an_offset_lie_in_the_same_blocks(tmp_path: Path) -> None:
    blocks = days("2021-01-03")
    bare = {"ts": hourly("2021-01-01", 120), "user": ["u"] * 120, "clicked": [0, 1] * 60}
    mixed = bare | {"ts": [t + "+08:00" * (n % 2) for n, t in enumerate(bare["ts"])]}
    schema = small_schema(time=LOCAL, blocks=blocks)
    logs = [prepared(tmp_path / name, schema, {"a.csv": c}) for name, c in (("a", bare), ("b", mixed))]
    assert encoded(logs[0]) == encoded(logs[1])
    assert rows(logs[1]) == dict.fromkeys(BLOCKS, 24)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/Sao_Paulo", "2018-11-04", [24, 24, 24, 24, 24]),  # midnight does not exist
        ("Europe/Berlin", "2021-10-31", [24, 24, 24, 24, 24]),  # an hour comes twice
        ("Europe/Berlin", "2021-03-28", [24, 24, 24, 24, 24]),  # an hour never comes
    ],
)
def test_a_day_on_which_the_clock_changes_is_a_day(
    tmp_path: Path, zone: str, day: str, hours: list[int]
) -> None:
    blocks = days(day)
    columns = {"ts": hourly(blocks["history"][0][0], 120), "user": ["u"] * 120, "clicked": [0, 1] * 60}
    schema = small_schema(time={"column": "ts", "zone": zone}, blocks=blocks)
    log = prepared(tmp_path, schema, {"a.csv": columns})
    assert rows(log) == dict(zip(BLOCKS, hours, strict=True))


@pytest.mark.parametrize(
    ("equals", "words"),
    [(True, ("yes", "no")), (True, ("true", "false")), (5, ("5.0", "4.0")), (5, ("5", "4"))],
)
def test_a_label_is_compared_by_value_and_a_bad_word_is_set_aside(
    tmp_path: Path, equals: Any, words: tuple
) -> None:
    values = in_every_block([words[0], words[1], words[0]])
    values[7] = "unknown"
    schema = small_schema(tasks=[{"name": "clicked", "equals": equals}], malformed="quarantine")
    log = prepared(tmp_path, schema, {"a.csv": filled({"clicked": values})})
    assert sum(block.label_groups.get(1, 0) for block in log.blocks.values()) == values.count(words[0])
    assert [row["row"] for row in quarantine(tmp_path)] == [8]


def test_lines_with_too_many_or_too_few_columns_are_set_aside(tmp_path: Path) -> None:
    write_table(
        tmp_path / "log/a.csv", filled({"ts": filled({"user": [1] * 20})["ts"]}) | {"title": ["x"] * 20}
    )
    lines = (tmp_path / "log/a.csv").read_text().splitlines()
    lines[4] += ", with a comma"
    lines.insert(9, "1600000000,u")
    (tmp_path / "log/a.csv").write_text("\n".join(lines))
    log = prepared(tmp_path, small_schema(malformed="quarantine"), {})
    assert sum(rows(log).values()) == 19
    reasons = [(row["row"], row["reason"], row["line"]) for row in quarantine(tmp_path)]
    assert reasons == [
        (4, "it has 5 columns instead of 4", lines[4]),
        (9, "it has 2 columns instead of 4", "1600000000,u"),
    ]
    with pytest.raises(DataError, match=r"a\.csv, row 4: it has 5 columns instead of 4: '.*comma'"):
        prepare(small_schema(), str(tmp_path / "log"), str(tmp_path / "strict"))


def test_a_schema_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes("# für den Shop\nname: shop\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"shop\.yaml is not UTF-8 \(line 1\)"):
        load_schema(str(tmp_path / "shop.yaml"))


class Arriving:
    """A stream of files with event ids, each of its blocks with what was set aside."""

    def __init__(self, folder: Path, **schema: Any) -> None:
        self.source = folder / "in"
        self.source.mkdir(parents=True)
        self.schema = small_schema(blocks=None, event_id="event", malformed="quarantine", **schema)
        self.folder = Folder.at(str(folder / "run"))

    def closed(self) -> Closed | None:
        arrivals = DirectoryArrivals(str(self.source), self.schema)
        config = StreamConfig(block_rows=1_000, min_rows=2, lateness=1e9)
        intake = Intake(self.folder, arrivals, self.schema, config, [])
        intake.poll()
        return intake.close(1, whole=True)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    "ids",
    [[str(10**19 + n) for n in range(100)], [f"{n:03}" for n in range(50)] + [str(n) for n in range(50)]],
)
def test_event_ids_are_text_as_written(tmp_path: Path, ending: str, ids: list[str]) -> None:
    stream = Arriving(tmp_path)
    write_table(stream.source / f"a.{ending}", filled({"event": ids}))
    write_table(stream.source / f"b.{ending}", filled({"event": [*ids[:3], "new"]}))
    closed = stream.closed()
    assert closed and closed.block.rows == len(set(ids)) + 1
    assert closed.state.counts["duplicates"] == 3


def test_what_a_writer_has_not_published_does_not_arrive(tmp_path: Path) -> None:
    stream = Arriving(tmp_path)
    for name in ("_temporary/0/part.csv", ".staging/b.csv", ".c.csv", "a.csv", "day=1/a.CSV"):
        write_table(stream.source / name, filled({"event": [name + str(n) for n in range(5)]}))
    closed = stream.closed()
    assert closed and closed.block.rows == 10


def test_an_irregular_line_of_an_arriving_file_is_set_aside_alone(tmp_path: Path) -> None:
    stream = Arriving(tmp_path)
    write_table(stream.source / "a.csv", filled({"event": [str(n) for n in range(10)]}))
    with (stream.source / "a.csv").open("a") as file:
        file.write("1,2\nts,clicked,user,event\n")
    closed = stream.closed()
    assert closed and closed.block.rows == 10 and closed.state.taken == (("a.csv", 0, 12, True),)
    assert closed.state.counts["malformed"] == 1
    assert closed.state.counts["repeated header lines left out"] == 1
    assert "files_quarantined" not in closed.state.counts


@pytest.mark.parametrize(
    "bad", [{"clicked": "unknown"}, {"user": [7]}, {"ts": "soon"}, {"user": "\ud800"}, {"event": {}}]
)
def test_a_bad_value_of_a_message_spoils_its_own_row_only(bad: dict[str, Any]) -> None:
    schema = small_schema(
        blocks=None, event_id="event", malformed="quarantine", tasks=[{"name": "clicked", "equals": True}]
    )
    good = {"ts": 1_600_000_000, "user": 12345678901234567890, "clicked": True, "event": 1}
    lists = [[good, good | bad, good | {"clicked": "no"}], [good | {"user": 7.0}], [good | {"user": "7"}]]
    messages = [Message(n, json.dumps(rows).encode()) for n, rows in enumerate(lists)]
    (piece,) = message_pieces("clicks/0", 0, messages, "json", schema)
    assert piece.rows["user"].to_pylist() == ["12345678901234567890"] * 2 + ["7", "7"]
    assert piece.rows["clicked"].to_pylist() == [1, 0, 1, 1]
    assert [row for table in piece.rejected for row in table["row"].to_pylist()] == [2]


def test_messages_of_arrow_may_differ_in_their_types() -> None:
    tables = [
        pa.table({"ts": [1], "user": pa.array([7], pa.int32()), "clicked": [True]}),
        pa.table({"ts": [2.5], "user": pa.array([7.0]), "clicked": [1]}),
        pa.table({"ts": ["3"], "user": pa.array([None], pa.null()), "clicked": ["0"]}),
    ]
    messages = []
    for number, table in enumerate(tables):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        messages.append(Message(number, sink.getvalue().to_pybytes()))
    (piece,) = message_pieces("clicks/0", 0, messages, "arrow", small_schema(blocks=None))
    assert piece.rows.to_pydict() == {
        "ts": [1000, 2500, 3000],
        "user": ["7", "7", None],
        "clicked": [1, 1, 0],
    }

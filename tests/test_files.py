"""Which files of a source are its log: none twice, none silently left out."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.errors import DataError
from diet_ray.log.files import ignored_files, log_files, partitions
from diet_ray.log.schema import parse_schema
from diet_ray.log.source import chunks
from tests.small_log import BLOCKS, encoded, filled, prepared, small_schema, write_table

ROWS = filled({"user": [str(n) for n in range(10) for _ in BLOCKS]})


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path, **schema: Any) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in log_files(str(folder), small_schema(**schema))]


part = st.tuples(
    st.sampled_from(["", ".", "_"]), st.sampled_from(["a", "b", "day=1", "temporary", "x.csv"])
).map("".join)


@given(st.lists(st.lists(part, min_size=1, max_size=3), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_what_is_hidden_or_lies_in_what_is_hidden_is_left_out(paths: list[list[str]]) -> None:
    with TemporaryDirectory() as folder:
        names = {"/".join([*(f"{p}-dir" for p in path[:-1]), path[-1] + ".csv"]) for path in paths}
        touch(Path(folder), *names, "seen.csv")
        hidden = {
            n for n in names if any(p[0] == "." or (p[0] == "_" and "=" not in p) for p in n.split("/"))
        }
        assert listed(Path(folder)) == sorted({*names, "seen.csv"} - hidden)
        assert ignored_files(folder, small_schema()) == []


def test_endings_in_any_case_are_read_and_others_are_named(tmp_path: Path) -> None:
    read = [
        "B.CSV",
        "a.csv",
        "b.tsv.bz2",
        "c.csv.zst",
        "d.pq",
        "e.jsonl",
        "f.ndjson.gz",
        "g.orc",
        "h.snappy.parquet",
        "i.feather",
    ]
    touch(tmp_path, *read, "notes.txt", "clicks.xlsx", "meta.json", "_SUCCESS", "c/old.csv.bak")
    assert listed(tmp_path) == sorted(read)
    assert ignored_files(str(tmp_path), small_schema()) == [
        "c/old.csv.bak",
        "clicks.xlsx",
        "meta.json",
        "notes.txt",
    ]
    assert listed(tmp_path, files={"patterns": ["*.csv", "c/*"]}) == ["a.csv", "c/old.csv.bak"]
    assert "B.CSV" in ignored_files(str(tmp_path), small_schema(files={"patterns": ["*.csv"]}))


def test_json_is_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "a.json", "b.json.gz")
    assert listed(tmp_path) == ["a.json", "b.json.gz"]


def test_a_source_without_a_log_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a.xlsx", "b.xlsx", "users.csv")
    with pytest.raises(DataError, match=r"no file at .* matches \*\.gz; it holds a\.xlsx and 2 more"):
        log_files(str(tmp_path), small_schema(files={"patterns": ["*.gz"]}))
    with pytest.raises(DataError, match=r"holds side tables only: users\.\*"):
        log_files(str(tmp_path), small_schema(join=[{"files": "users.*", "on": "user"}]))


def test_linked_folders_and_files_are_read_once_and_never_for_ever(tmp_path: Path) -> None:
    log, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    touch(log, "2021-a/x.csv", "real/y.csv")
    touch(elsewhere, "z.csv", "w.csv", "deep/v.csv")
    links = {"2021-b": elsewhere, "again": elsewhere, "inside": log / "real", "up": log, "further": tmp_path}
    links |= {
        "latest.csv": log / "real/y.csv",
        "2021-a/top": log / "2021-a",
        "w-again.csv": elsewhere / "w.csv",
    }
    for name, target in links.items():
        (log / name).symlink_to(target)
    (elsewhere / "back").symlink_to(log)
    assert listed(log) == ["2021-a/x.csv", "2021-b/deep/v.csv", "2021-b/w.csv", "2021-b/z.csv", "real/y.csv"]
    assert ignored_files(str(log), small_schema()) == ["latest.csv", "w-again.csv"]


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "log/a.csv")
    (tmp_path / "log/b.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"b\.csv cannot be read: .*No such file"):
        list(chunks(str(tmp_path / "log/b.csv"), small_schema(), str(tmp_path / "log")))


def test_partitions_are_columns_unless_the_file_has_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert partitions(
        str(log), str(log / "day=2021-01-01/c%3Dx=a%2Fb/k=__HIVE_DEFAULT_PARTITION__/x=1.csv")
    ) == {
        "day": "2021-01-01",
        "c=x": "a/b",
        "k": None,
    }
    files = {
        f"country={country}/shelf={shelf}/a.{ending}": ROWS | {"note": ["x"] * 50}
        for country, shelf, ending in [
            ("NA", "007", "csv"),
            ("DE", "7", "parquet"),
            ("__HIVE_DEFAULT_PARTITION__", "7", "jsonl"),
        ]
    }
    schema = small_schema(fields=["user", "country", "shelf"])
    log = prepared(tmp_path, schema, files)
    assert log.blocks["test"].table_rows == (11, 3, 3)
    own = {"user=nobody/a.csv": ROWS}
    assert encoded(prepared(tmp_path / "own", small_schema(), own))["test"][0] == (11,)


def test_a_partition_may_be_the_time(tmp_path: Path) -> None:
    edges = [f"2021-01-0{day}" for day in range(1, 7)]
    cuts = [[a, b] for a, b in pairwise(edges)]
    blocks = {"history": cuts[:2], "subsequent": cuts[2], "validation": cuts[3], "test": cuts[4]}
    schema = small_schema(time={"column": "day"}, blocks=blocks)
    files = {f"day={day}/part-0.csv": {"user": ["a", "b"], "clicked": [0, 1]} for day in edges[:5]}
    assert [block.rows for block in prepared(tmp_path, schema, files).blocks.values()] == [2] * len(BLOCKS)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl", "csv.gz", "orc"])
def test_a_side_table_has_any_format_and_ids_as_written(tmp_path: Path, ending: str) -> None:
    """Text ids, twenty digits, numbers in a test, and a key that is there twice: the first counts."""
    number = pa.array([n % 3 for n in range(11)])
    items = {
        "user": [str(n) for n in range(10)] + ["0"],
        "shelf": [["007", "7"][n % 2] for n in range(10)] + ["8"],
        "maker": [str(10**19 + n) for n in range(10)] + ["9"],
        "price": number,
    }
    schema = small_schema(
        fields=["user", "shelf", "maker", {"name": "price", "at_most": 1}],
        where=[{"column": "price", "at_most": 2}],
        tasks=[{"name": "cheap", "from": "price", "equals": 0}],
        join=[{"files": "items.*", "on": "user"}],
    )
    log = prepared(tmp_path, schema, {"clicks.csv": ROWS, f"items.{ending}": items})
    assert log.blocks["test"].table_rows == (11, 3, 11, 3)
    assert sum(block.label_groups[1] for block in log.blocks.values()) == 4 * len(BLOCKS)


@pytest.mark.parametrize("mark", [",", "|"])
def test_a_side_table_is_written_as_the_log_or_as_plain_csv(tmp_path: Path, mark: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/users.csv").write_text(f"user{mark}age\n0{mark}30\n")
    lines = ["|".join(map(str, row)) for row in zip(*ROWS.values(), strict=True)]
    (tmp_path / "log/clicks.csv").write_text("\n".join(["|".join(ROWS), *lines]))
    schema = small_schema(
        fields=["age"], files={"separator": "|"}, join=[{"files": "users.csv", "on": "user"}]
    )
    assert prepared(tmp_path, schema, {}).blocks["test"].table_rows == (2,)


def test_side_tables_of_two_files_may_differ_in_their_types(tmp_path: Path) -> None:
    first = {"user": pa.array([0, 1]), "maker": pa.array([2**53 + 1, 7])}
    second = {"user": pa.array([2.0, None]), "maker": pa.array([str(2**53 + 1), "8"])}
    schema = small_schema(fields=["maker"], join=[{"files": "items-*", "on": "user"}])
    files = {"clicks.csv": ROWS, "items-1.parquet": first, "items-2.parquet": second}
    assert prepared(tmp_path, schema, files).blocks["test"].table_rows == (3,)


def test_a_side_table_beside_a_file_and_a_column_of_both(tmp_path: Path) -> None:
    """The log's own column counts."""
    write_table(tmp_path / "log/users.csv", {"user": ["0"], "age": ["30"], "clicked": ["x"]})
    write_table(tmp_path / "log/clicks.csv", ROWS)
    schema = small_schema(fields=["age"], join=[{"files": "users.csv", "on": "user"}])
    result = pa.concat_tables(
        c.table for c in chunks(str(tmp_path / "log/clicks.csv"), schema, str(tmp_path / "log/clicks.csv"))
    )
    assert result["age"].to_pylist() == ["30"] * 5 + [None] * 45
    assert result["clicked"].to_pylist() == ["0", "1"] * 25


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("is_side", [False, True])
def test_a_column_that_is_there_twice_is_named(tmp_path: Path, ending: str, is_side: bool) -> None:
    path = tmp_path / f"twice.{ending}"
    if ending == "parquet":
        columns = [pa.array(values) for values in (*ROWS.values(), ROWS["user"], ROWS["user"], ROWS["user"])]
        pa.parquet.write_table(pa.Table.from_arrays(columns, names=[*ROWS, "user", "unread", "unread"]), path)
    else:
        mark = "\t" if ending == "tsv" else ","
        path.write_text(mark.join(["ts", "clicked", "user", "unread", "user", "unread"]) + "\n")
    schema = small_schema(
        malformed="quarantine", join=[{"files": "twice.*", "on": "user"}] if is_side else []
    )
    write_table(tmp_path / "log.csv", ROWS)
    with pytest.raises(DataError, match=rf"twice\.{ending} has the column user 2 times"):
        list(chunks(str(tmp_path / "log.csv" if is_side else path), schema, str(tmp_path)))


def test_a_wrong_separator_is_guessed_at_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ts;user;clicked\n1;2;3\n")
    with pytest.raises(
        DataError, match=r"has no column ts, user, clicked; it has .*set files\.separator to ';'"
    ):
        list(chunks(str(tmp_path / "a.csv"), small_schema(), str(tmp_path)))


def test_the_default_of_version_0_1_0_is_todays_default() -> None:
    stored = small_schema().plain() | {
        "files": {"patterns": ["*.parquet", "*.csv", "*.csv.gz", "*.tsv", "*.tsv.gz"]}
    }
    del stored["missing"]
    assert parse_schema(stored, "stored") == small_schema()
    assert parse_schema(small_schema(files={"quote": None}).plain(), "stored").files.quote == "none"

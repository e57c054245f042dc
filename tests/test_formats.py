"""Files of every format give their rows in order and numbered; a line that is wrong costs itself only."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.errors import ConfigError, DataError
from diet_ray.log.declaration import FilesConfig
from diet_ray.log.formats import delimited, json_lines
from diet_ray.log.formats.batch import Batch
from diet_ray.log.formats.delimited import Delimited
from diet_ray.log.formats.json_lines import JsonLines
from diet_ray.log.formats.opening import open_table
from diet_ray.log.values.columns import plain
from diet_ray.log.values.ids import ids_of
from tests.small_log import filled, prepared, quarantine, small_schema, write_table

NAMES = ["ts", "user", "note"]


def rows_of(content: bytes, *, block: int = 1 << 20, tabs: bool = False, **config: Any) -> tuple[list, list]:
    """(number, cells) of each row that could be read, and (number, reason) of the others."""
    before, delimited.BLOCK_BYTES = delimited.BLOCK_BYTES, block
    try:
        file = Delimited(io.BytesIO(content), "log.csv", FilesConfig(**config), tabs=tabs)
        batches = list(file.batches(NAMES))
    finally:
        delimited.BLOCK_BYTES = before
    return rows_and_faults(batches)


def rows_and_faults(batches: list[Batch]) -> tuple[list, list]:
    good = [
        (row, [cells[name] for name in batch.table.column_names])
        for batch in batches
        for row, cells in zip(batch.row_N.tolist(), batch.table.to_pylist(), strict=True)
    ]
    return good, [(row, reason) for batch in batches for row, _, reason in batch.unread]


def written(rows: list[list[str]], **how: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", **how).writerows([NAMES, *rows])
    return text.getvalue().encode()


cells = st.text(st.sampled_from('ab1,;\t"\n \\é'), max_size=6)
tables = st.lists(st.lists(cells, min_size=3, max_size=3), max_size=8)


@given(
    tables, st.integers(1, 60), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(",;|")
)
@settings(deadline=None)
def test_cells_come_back_as_a_writer_of_csv_wrote_them(
    rows: list[list[str]], block: int, quoting: Any, separator: str
) -> None:
    """With the quotation mark named, cells may hold line breaks; whatever the size of a block."""
    content = written(rows, quoting=quoting, delimiter=separator)
    good, bad = rows_of(content, block=block, separator=separator, quote='"')
    assert not bad
    assert good == [(n, [cell or None for cell in row]) for n, row in enumerate(rows, start=1)]


plain_cells = st.text(st.sampled_from("ab1é -"), min_size=1, max_size=4)


@given(
    st.lists(
        st.one_of(
            st.lists(plain_cells, min_size=3, max_size=3), st.sampled_from(["short", "long", "stray", "open"])
        )
    ),
    st.integers(1, 60),
)
@settings(deadline=None)
def test_an_irregular_line_costs_itself_only(lines: list[Any], block: int) -> None:
    """Too few or too many columns, text behind a closing mark, a mark that is never closed."""
    wrong = {"short": "1,2", "long": "1,2,3,4", "stray": '1,"2"x,3', "open": '1,2,"best of'}
    content = "\n".join(
        [",".join(NAMES), *(wrong[x] if isinstance(x, str) else ",".join(x) for x in lines), ""]
    )
    good, bad = rows_of(content.encode(), block=block)
    assert good == [(n, x) for n, x in enumerate(lines, start=1) if not isinstance(x, str)]
    assert [n for n, _ in bad] == [n for n, x in enumerate(lines, start=1) if isinstance(x, str)]
    for n, reason in bad:
        says = {"short": "2 columns instead of 3", "long": "4 columns"}.get(lines[n - 1], "quotation mark")
        assert says in reason


@pytest.mark.parametrize("tabs", [True, False])
@pytest.mark.parametrize("closing", ["", '5,6,27"', '5,6,second"'])
def test_a_quotation_mark_swallows_no_rows(tabs: bool, closing: str) -> None:
    """Closed by another one further down, or never."""
    lines = [",".join(NAMES), '1,2,"best of', "3,4,x", *([closing] if closing else []), "7,8,y"]
    content = "\n".join(lines).replace(",", "\t" if tabs else ",").encode()
    good, bad = rows_of(content, tabs=tabs)
    assert [row for row, _ in good] == ([2, 3, 4] if closing else [2, 3]) and [row for row, _ in bad] == [1]
    assert "files.quote" in bad[0][1]
    good, bad = rows_of(content, tabs=tabs, quote=None)
    assert [cells[2] for _, cells in good][:2] == ['"best of', "x"] and not bad


def test_a_cell_over_several_lines_is_one_cell_unless_they_look_like_rows() -> None:
    content = b'ts,user,note\n1,u,"first\nsecond, third"\n2,v,x\n'
    assert rows_of(content)[0] == [(1, ["1", "u", "first\nsecond, third"]), (2, ["2", "v", "x"])]
    assert [row for row, _ in rows_of(content.replace(b",", b"\t"), tabs=True)[1]] == [1, 2]


def test_marks_within_a_cell_are_characters() -> None:
    good, bad = rows_of(b'ts,user,note\n1,tv 32" wide,"a ""b"""\n')
    assert good == [(1, ["1", 'tv 32" wide', 'a "b"'])] and not bad


@pytest.mark.parametrize("separator", ["::", "\t", "\\t", "\x01", "\\x01", " ", "§", "||"])
def test_any_separator(separator: str) -> None:
    character = {"\\t": "\t", "\\x01": "\x01"}.get(separator, separator)
    content = "\n".join(character.join(row) for row in [NAMES, ["1", "u:,", 'a"b'], ["2", "v", ""], ["3"]])
    good, bad = rows_of(content.encode(), separator=separator)
    assert good == [(1, ["1", "u:,", 'a"b']), (2, ["2", "v", None])] and [row for row, _ in bad] == [3]
    with_unit = content.replace("v", "\x1f").encode()
    assert rows_of(with_unit, separator=separator)[0][1] == (2, ["2", "\x1f", None])


@pytest.mark.parametrize(
    "files",
    [
        {"separator": ""},
        {"separator": '"'},
        {"separator": "a\n"},
        {"quote": "''"},
        {"quote": "'", "separator": "::"},
        {"columns": ["a", "a"]},
    ],
)
def test_a_file_that_is_declared_wrongly_is_refused_when_the_schema_is_read(files: dict) -> None:
    with pytest.raises(ConfigError, match="files"):
        small_schema(files=files)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_byte_order_marks_and_empty_lines_are_no_cells(end: str) -> None:
    content = "\ufeff" + end.join(["ts,user,note", "1,u,x", "", "2,v,y", ""])
    assert rows_of(content.encode())[0] == [(1, ["1", "u", "x"]), (2, ["2", "v", "y"])]


def test_a_header_within_the_file_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = ["ts,user,clicked", *(f"{1_600_000_000 + 500 * n},u,0" for n in range(10))]
    (tmp_path / "log").mkdir()
    (tmp_path / "log/a.csv").write_text("\n".join([*lines[:4], lines[0], *lines[4:], lines[0], ""]))
    log = prepared(tmp_path, small_schema(), {})
    assert sum(block.rows for block in log.blocks.values()) == 10
    with open_table(str(tmp_path / "log/a.csv"), FilesConfig()) as file:
        (batch,) = file.batches(["ts"])
    assert (
        batch.headers == 2 and batch.row_N.tolist() == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11] and batch.stop == 12
    )


def test_bytes_that_are_not_utf_8_cost_the_row_whose_cell_is_read() -> None:
    content = b"ts,user,note\n1,u,x\n2,\xff,y\n3,w,\xfe\n"
    file = Delimited(io.BytesIO(content), "log.csv", FilesConfig(), tabs=False)
    (batch,) = file.batches(["ts", "user"])
    assert batch.table["user"].to_pylist() == [b"u", b"\xff", b"w"]
    irregular = Delimited(io.BytesIO(content + b"4\n"), "log.csv", FilesConfig(), tabs=False)
    (batch,) = irregular.batches(["ts", "user"])
    assert batch.table["user"].to_pylist() == [b"u", b"\xff", b"w"] and [u.row for u in batch.unread] == [4]


def test_the_type_of_a_column_is_not_guessed_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that is empty at first, and a word among labels, far behind the first block."""
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 200)
    columns = filled({"user": [str(n) for n in range(200)]})
    columns |= {"note": [""] * 180 + ["late"] * 20, "clicked": [0] * 150 + ["broken"] + [1] * 49}
    columns = {name: [str(value) for value in values] for name, values in columns.items()}
    log = prepared(tmp_path, small_schema(malformed="quarantine"), {"a.csv": columns})
    assert sum(block.rows for block in log.blocks.values()) == 199
    (row,) = quarantine(tmp_path)
    assert (row["row"], row["clicked"], row["reason"]) == (151, "broken", "clicked is not 0 or 1")


ENDINGS = {
    "csv": lambda b: b,
    "CSV": lambda b: b,
    "csv.gz": gzip.compress,
    "csv.bz2": bz2.compress,
    "csv.xz": lzma.compress,
    "csv.zst": lambda b: pa.compress(b, codec="zstd", asbytes=True),
    "CSV.GZ": gzip.compress,
    "data": gzip.compress,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_compressed_text_is_read_by_its_ending_or_its_first_bytes(tmp_path: Path, ending: str) -> None:
    content = b"ts,user,note\n" + b"1,u,x\n" * 1000
    (tmp_path / f"log.{ending}").write_bytes(ENDINGS[ending](content))
    with open_table(str(tmp_path / f"log.{ending}"), FilesConfig()) as file:
        assert file.columns == NAMES
        assert sum(len(batch.row_N) for batch in file.batches(["ts"])) == 1000
    (tmp_path / f"log.{ending}").write_bytes(ENDINGS[ending](content)[:-15])
    if ending.lower() != "csv":
        with (
            pytest.raises(DataError, match=f"log.{ending} cannot be read"),
            open_table(str(tmp_path / f"log.{ending}"), FilesConfig()) as file,
        ):
            list(file.batches(["ts"]))


@pytest.mark.parametrize("kind", ["parquet", "orc", "arrow"])
@pytest.mark.parametrize("name", ["log", "log.dat", "log.{kind}", "log.{kind}.gz", "log.{upper}"])
def test_columnar_files_are_known_by_their_content(tmp_path: Path, kind: str, name: str) -> None:
    write_table(tmp_path / f"x.{kind}", {"ts": [1, 2], "user": ["u", "v"], "other": [None, 1.5]})
    content = (tmp_path / f"x.{kind}").read_bytes()
    path = tmp_path / name.format(kind=kind, upper=kind.upper())
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with open_table(str(path), FilesConfig()) as file:
        assert file.columns == ["ts", "user", "other"]
        good, _ = rows_and_faults(list(file.batches(["user", "ts"])))
    assert good == [(1, ["u", 1]), (2, ["v", 2])]


@pytest.mark.parametrize("kind", ["parquet", "orc", "arrow"])
def test_text_that_is_not_utf_8_costs_its_own_row(tmp_path: Path, kind: str) -> None:
    """Readers of these formats believe what a file says of itself."""
    users = pa.array([b"u", b"\xff", b"w"]).view(pa.string())
    write_table(tmp_path / f"a.{kind}", {"user": users})
    with open_table(str(tmp_path / f"a.{kind}"), FilesConfig()) as file:
        (batch,) = file.batches(["user"])
    ids = ids_of(plain(batch.table["user"]), "user")
    assert ids.values.to_pylist() == ["u", None, "w"] and ids.bad_N.tolist() == [False, True, False]


def test_a_header_may_begin_like_a_format(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ORCID,ts\n7,1\n")
    with open_table(str(tmp_path / "a.csv"), FilesConfig()) as file:
        assert file.columns == ["ORCID", "ts"]


values = st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.text(max_size=4))
BAD_LINES = [
    '{"ts": 1e9999999999999999999}',
    "{",
    "7",
    "not json",
    '{"ts": [1]}',
    '{"ts": {"a": 1}}',
    '{"ts": "\\ud800"}',
    '[{"ts": 1}, 7]',
]


@given(
    st.lists(st.one_of(st.fixed_dictionaries({"ts": values}), st.sampled_from(BAD_LINES)), max_size=8),
    st.integers(1, 40),
)
@settings(deadline=None)
def test_json_lines_are_rows_with_their_values_as_text(lines: list[Any], block: int) -> None:
    lines = [{"ts": "first"}, *lines]
    content = "\n\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    before, json_lines.BLOCK_BYTES = json_lines.BLOCK_BYTES, block
    try:
        good, bad = rows_and_faults(
            list(JsonLines(io.BytesIO(content.encode()), "log.jsonl").batches(["ts"]))
        )
    finally:
        json_lines.BLOCK_BYTES = before

    def text(value: Any) -> str | None:
        return value if value is None or isinstance(value, str) else json.dumps(value)

    assert good == [(n, [text(x["ts"])]) for n, x in enumerate(lines, start=1) if not isinstance(x, str)]
    assert [n for n, _ in bad] == [n for n, x in enumerate(lines, start=1) if isinstance(x, str)]


def test_json_may_be_a_list_and_may_lack_keys(tmp_path: Path) -> None:
    rows = [{"ts": 1, "user": 1.0}, {"ts": 2}, {"ts": 3, "user": 12345678901234567890}]
    for indent in (None, 1):
        file = JsonLines(io.BytesIO(json.dumps(rows, indent=indent).encode()), "log.json")
        assert rows_and_faults(list(file.batches(["user"])))[0] == [
            (1, ["1"]),
            (2, [None]),
            (3, ["12345678901234567890"]),
        ]
    with pytest.raises(DataError, match=r"log\.json: no row has the key usr"):
        list(JsonLines(io.BytesIO(json.dumps(rows).encode()), "log.json").batches(["usr"]))

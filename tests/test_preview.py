"""What `prepare` shows of a log: its first rows before, its blocks after."""

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from diet_ray.errors import DataError
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.preparation.preview import check_first_rows, preview
from diet_ray.storage import Folder
from pipelines.prepare import check, show
from pipelines.reporting.prepared import prepared_tables, preview_tables
from tests.shop_log import contents, shop_rows, shop_schema, write_source

QUARANTINE = shop_schema(malformed="quarantine")


def printed(parts: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A log with two bad rows, one label that is never 1, and a note beside it."""
    rows = shop_rows()
    rows["bought"] = 0
    rows.loc[[3, 4], "clicked"] = 7
    rows.loc[5, "ts"] = pd.Timestamp("2016-01-01")
    folder = write_source(tmp_path / "source", rows[:200], "a.csv")
    write_source(tmp_path / "source", rows[200:], "b.parquet")
    (tmp_path / "source/notes.md").write_text("x")
    return folder


def test_a_prepared_log_is_shown_block_by_block(source: str, tmp_path: Path) -> None:
    log = prepare(QUARANTINE, source, str(tmp_path / "out"))
    rows = shop_rows().drop(index=[3, 4, 5])
    first = rows[(rows["ts"] >= "2017-01-01") & (rows["ts"] < "2017-04-01")]
    text = printed(prepared_tables(log))
    block = text.split("block 0002")[0]
    assert f"block 0001: {len(first)} rows, {first['ts'].min()} to {first['ts'].max()} UTC" in block
    assert f"clicked {first['clicked'].mean():.4f}" in block
    cells = {
        line.split()[0]: line.split()[1:] for line in block.splitlines() if line.startswith(("user", "brand"))
    }
    assert cells["user_id"] == [f"{first['user_id'].nunique()}", "0.00%"]
    assert cells["brand"] == [f"{first['brand'].nunique()}", f"{first['brand'].isna().mean():.2%}"]
    constant = "label bought is 0 in every row of block 0001, 0002, subsequent, validation, test"
    assert constant in " ".join(text.split())
    assert "1 rows lie outside of every block" in text
    assert "   2   clicked is not 0 or 1" in text
    assert max(map(len, text.splitlines())) <= 80


def test_many_fields_and_long_names_fit_a_narrow_terminal(tmp_path: Path) -> None:
    rows = shop_rows().rename(columns={"brand": "the_name_of_the_brand_of_the_item_of_the_shop"})
    names = [f"field_{n}" for n in range(9)]
    fields = [*({"name": name, "from": "item_id"} for name in names), rows.columns[3], "user_id"]
    log = prepare(shop_schema(fields=fields), write_source(tmp_path / "source", rows), str(tmp_path / "out"))
    lines = printed(prepared_tables(log)).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("field_" in line for line in lines) < 9 * len(log.blocks)


def test_a_log_of_version_0_1_is_shown_without_what_it_did_not_count(shop_log: Path, tmp_path: Path) -> None:
    log = prepare(shop_schema(), str(shop_log / "source"), str(shop_log / "out"))
    log.missing = {}
    assert "brand       3         -" in printed(prepared_tables(log))


def test_the_first_rows_show_what_the_log_becomes_and_nothing_is_written(source: str, tmp_path: Path) -> None:
    before = contents(tmp_path)
    text = printed(preview_tables(preview(QUARANTINE, source)))
    assert contents(tmp_path) == before
    assert "a.csv" in text and "b.parquet" in text and "timestamp" in text
    assert "297 rows" in text.splitlines()[0] or "298 rows" in text.splitlines()[0]
    assert "times: 2016-01-01 00:00:00 to 2017-09-29 05:47:11 UTC" in text
    assert "1 of these rows lie outside of every block" in text
    assert "   2   clicked is not 0 or 1" in text
    assert "problem: label bought is 0 in all of these rows" in text
    users = next(line for line in text.splitlines() if line.startswith("user_id"))
    assert "u23" in users
    assert max(map(len, text.splitlines())) <= 80


def test_every_file_that_cannot_be_read_is_shown(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(Path(source), shop_rows()[:9].drop(columns="brand"), "c.parquet")
    (Path(source) / "d.parquet").write_bytes(b"PAR1 nothing")
    (Path(source) / "e.csv").write_text("ts,user_id,item_id,brand,clicked,bought\n")
    found = preview(QUARANTINE, source)
    problems = {Path(file.name).name: file.problem for file in found.files if file.problem}
    assert problems.keys() == {"c.parquet", "d.parquet", "e.csv"}
    assert "has no column brand" in problems["c.parquet"] and "has no rows" in problems["e.csv"]
    with pytest.raises(DataError, match="cannot be prepared with this schema; see the problems above"):
        check(source, QUARANTINE)
    shown = capsys.readouterr().err
    assert "not read: notes.md" in shown and "d.parquet" in shown


def test_the_files_beside_the_log_are_named(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = prepare(QUARANTINE, source, f"{source}/prepared")
    show(log, QUARANTINE, source, f"{source}/prepared")
    shown = capsys.readouterr().err
    assert "not read: notes.md\n" in shown and "prepared.json" not in shown


@pytest.mark.parametrize(("column", "says"), [("brand", "has no column brand"), ("ts", "has no column ts")])
def test_a_misspelt_column_is_seen_in_the_first_rows(tmp_path: Path, column: str, says: str) -> None:
    source = write_source(tmp_path / "source", shop_rows().rename(columns={column: "misspelt"}), "log.csv")
    with pytest.raises(DataError, match=says):
        check_first_rows(shop_schema(), source, str(tmp_path / "out"))


def test_a_bad_row_behind_the_first_ones_is_left_to_the_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diet_ray.log.preparation.preview.ROWS", 10)
    rows = shop_rows()
    rows.loc[10, "clicked"] = 7
    source = write_source(tmp_path / "source", rows, "log.csv")
    check_first_rows(shop_schema(), source, str(tmp_path / "out"))
    with pytest.raises(DataError, match="row 11"):
        prepare(shop_schema(), source, str(tmp_path / "out"))
    assert not Folder.at(str(tmp_path / "out")).exists("prepared.json")

"""What is wrong with a log is named; nothing half-made is left, or the bad rows are set aside."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diet_ray.errors import DataError
from diet_ray.log.preparation.prepare import in_process, prepare
from tests.shop_log import assert_holds, by_block, contents, shop_rows, shop_schema, write_source

SHOP = shop_schema()
QUARANTINE = shop_schema(malformed="quarantine")


def without_july(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["ts"] < "2017-07-01") | (rows["ts"] >= "2017-08-15")]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda rows: rows.drop(columns="item_id"), r"log\.csv has no column item_id; it has ts, user_id"),
        (lambda rows: rows.replace({"clicked": {1: 2}}), r"log\.csv, row \d+: clicked is not 0 or 1"),
        (
            lambda rows: rows.astype({"ts": str}).replace({"ts": {str(rows.ts[6]): "soon"}}),
            r"log\.csv, row 7: ts is missing or not a time: \{'ts': 'soon'\}",
        ),
        (
            without_july,
            "block subsequent is empty: no row of the log lies in 2017-07-01T00:00:00.000 to 2017-08-15",
        ),
        (lambda rows: rows[:0], "block 0001 is empty"),
    ],
)
def test_a_failed_preparation_leaves_no_manifest_and_a_corrected_one_succeeds(
    tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    source, out = write_source(tmp_path / "source", spoil(shop_rows()), "log.csv"), tmp_path / "out"
    with pytest.raises(DataError, match=says):
        prepare(SHOP, source, str(out))
    assert not (out / "prepared.json").exists()
    log = prepare(SHOP, write_source(tmp_path / "source", shop_rows(), "log.csv"), str(out))
    assert_holds(log, out, by_block(shop_rows()))
    left = {path.name for path in out.iterdir()}
    assert left == {"blocks", "prepared.json", "sources.json", "vocabulary"}


def test_a_failure_between_the_passes_leaves_nothing_that_shows_in_the_next_attempt(
    shop_log: Path, tmp_path: Path
) -> None:
    def fails_to_encode(function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
        if label == "encoding":
            in_process(function, items[:2], label)
            raise DataError("the disk is full")
        return in_process(function, items, label)

    rows = shop_rows().assign(user_id="someone else")
    for name, half in {"a.parquet": rows[::2], "b.parquet": rows[1::2]}.items():
        other = write_source(tmp_path / "source", half, name)
    with pytest.raises(DataError, match="the disk is full"):
        prepare(SHOP, other, str(tmp_path / "out"), fails_to_encode)
    prepare(SHOP, str(shop_log / "source"), str(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(shop_log / "out")


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no file at {tmp_path}/nowhere"):
        prepare(SHOP, str(tmp_path / "nowhere"), str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_quarantine_keeps_the_good_rows_and_sets_the_bad_ones_aside(tmp_path: Path, name: str) -> None:
    rows, out = shop_rows(), tmp_path / "out"
    spoilt = rows.copy()
    spoilt.loc[5, "ts"] = pd.NaT
    spoilt.loc[9, "clicked"] = 7
    log = prepare(QUARANTINE, write_source(tmp_path / "source", spoilt, name), str(out))
    assert_holds(log, out, by_block(rows.drop(index=[5, 9])))
    assert log.left_out == {"outside of every block": 0, "quarantined": 2}
    aside = pd.read_parquet(out / "quarantine")
    assert aside["row"].tolist() == [6, 10]
    assert aside["reason"].tolist() == ["ts is missing or not a time", "clicked is not 0 or 1"]
    assert all(path.endswith(f"/source/{name}") for path in aside["file"])
    assert aside["user_id"].tolist() == rows["user_id"][[5, 9]].tolist()
    assert aside["clicked"].astype(int).tolist() == [rows["clicked"][5], 7]


def test_quarantine_cannot_fill_a_block(tmp_path: Path) -> None:
    rows = shop_rows()
    rows.loc[rows["ts"] >= "2017-09-01", "clicked"] = 7
    with pytest.raises(DataError, match="block test is empty"):
        prepare(QUARANTINE, write_source(tmp_path / "source", rows), str(tmp_path / "out"))

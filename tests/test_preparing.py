"""A log becomes encoded blocks whatever its format and order, and the same ones again."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diet_ray.errors import DataError
from diet_ray.log.dataset import Block, PreparedLog, check_time_order
from diet_ray.log.preparing import in_process, prepare
from diet_ray.log.schema import load_schema
from diet_ray.log.shuffle import joined
from tests.shop_log import (
    BLOCKS,
    SHOP_YAML,
    assert_holds,
    by_block,
    contents,
    shop_rows,
    shop_schema,
    write_source,
)

SHOP = shop_schema()


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.csv.gz"])
def test_a_users_own_schema_prepares_every_format_to_the_same_log(tmp_path: Path, name: str) -> None:
    (tmp_path / "myshop.yaml").write_text(SHOP_YAML)
    schema, out = load_schema(str(tmp_path / "myshop.yaml")), tmp_path / "out"
    log = prepare(schema, write_source(tmp_path / "source", shop_rows(), name), str(out))
    assert_holds(log, out, by_block(shop_rows()))


def test_text_ids_have_the_same_rows_from_csv_and_from_parquet(tmp_path: Path) -> None:
    rows = shop_rows().astype({"item_id": str})
    logs = [
        prepare(SHOP, write_source(tmp_path / name, rows, name), str(tmp_path / f"{name}.out"))
        for name in ("log.csv", "log.parquet")
    ]
    for block in BLOCKS:
        a, b = (joined(list(log.chunks(log.blocks[block]))) for log in logs)
        assert np.array_equal(a.id_NF, b.id_NF) and np.array_equal(a.label_NT, b.label_NT)


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 1000), ("us", 1_000_000)])
def test_a_time_in_numbers_prepares_to_the_same_log(tmp_path: Path, unit: str, per_second: int) -> None:
    rows = shop_rows()
    numbers = rows["ts"].astype("datetime64[s]").astype("int64") * per_second
    source, out = write_source(tmp_path / "source", rows.assign(ts=numbers)), tmp_path / "out"
    log = prepare(shop_schema(time={"column": "ts", "unit": unit}), source, str(out))
    assert_holds(log, out, by_block(rows))


def test_local_times_under_their_zone_prepare_to_the_same_rows_as_utc_would(
    shop_log: Path, tmp_path: Path
) -> None:
    """Boundaries and hours are local too, so that nothing but the times themselves moves."""
    schema = shop_schema(time={"column": "ts", "zone": "Asia/Shanghai"})
    log = prepare(schema, str(shop_log / "source"), str(tmp_path))
    assert_holds(log, tmp_path, by_block(shop_rows()))
    there = PreparedLog.open(str(shop_log / "out"))
    shift = {there.blocks[name].min_ts - log.blocks[name].min_ts for name in BLOCKS}
    assert shift == {8 * 3_600_000}


def test_a_threshold_makes_a_label(tmp_path: Path) -> None:
    rows = shop_rows()
    schema = shop_schema(tasks=["bought", {"name": "liked", "from": "rating", "at_least": 4}])
    log = prepare(schema, write_source(tmp_path / "source", rows, "log.csv"), str(tmp_path / "out"))
    liked = np.concatenate([c.label_NT[:, 1] for block in log.blocks.values() for c in log.chunks(block)])
    assert liked.tolist() == (rows["rating"] >= 4).astype(int).tolist()


def test_equal_time_history_takes_the_place_of_listed_blocks(shop_log: Path, tmp_path: Path) -> None:
    history = {"start": "2017-01-01", "end": "2017-07-01", "parts": 4}
    schema = shop_schema(blocks={**SHOP.plain()["blocks"], "history": history})
    log = prepare(schema, str(shop_log / "source"), str(tmp_path))
    rows, edges = shop_rows(), pd.date_range("2017-01-01", "2017-07-01", periods=5)
    counts = pd.cut(rows["ts"], edges, right=False).value_counts(sort=False)
    assert [block.rows for block in log.history] == counts.tolist()
    assert (
        log.history[-1].max_ts < pd.Timestamp("2017-07-01").value // 10**6 <= log.blocks["subsequent"].min_ts
    )


def test_rows_of_a_file_may_come_in_any_order(tmp_path: Path) -> None:
    rows = shop_rows().sample(frac=1, random_state=0).reset_index(drop=True)
    log = prepare(SHOP, write_source(tmp_path / "source", rows), str(tmp_path / "out"))
    assert_holds(log, tmp_path / "out", by_block(rows))


def test_files_may_come_in_any_order_and_rows_keep_that_of_the_files(tmp_path: Path) -> None:
    rows, out = shop_rows(), tmp_path / "out"
    halves = rows[150:], rows[:150]
    for name, half in zip(("a.csv", "b.csv"), halves, strict=True):
        source = write_source(tmp_path / "source", half, name)
    log = prepare(SHOP, source, str(out))
    assert_holds(log, out, by_block(pd.concat(halves, ignore_index=True)))


def test_the_order_in_which_pieces_are_worked_on_does_not_show(tmp_path: Path) -> None:
    def backwards(function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
        return in_process(function, items[::-1], label)[::-1]

    for n in range(4):
        source = write_source(tmp_path / "source", shop_rows()[n::4], f"{n}.parquet")
    for name, mapper in (("a", in_process), ("b", backwards)):
        prepare(SHOP, source, str(tmp_path / name), mapper)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(("starts", "fine"), [((10, 11), True), ((10, 10), True), ((10, 9), False)])
def test_blocks_that_run_backwards_are_refused(starts: tuple[int, int], fine: bool) -> None:
    first, second = starts
    blocks = [Block("a", 1, 0, first, (), {}, ()), Block("b", 1, second, 20, (), {}, ())]
    if fine:
        check_time_order(blocks)
    else:
        with pytest.raises(DataError, match="time runs backwards: block b starts before block a ends"):
            check_time_order(blocks)


def test_rows_outside_of_every_block_are_counted(tmp_path: Path) -> None:
    rows = shop_rows()
    rows.loc[[0, 299], "ts"] = [pd.Timestamp("2016-12-31 23:59:59"), pd.Timestamp("2017-10-01")]
    log = prepare(SHOP, write_source(tmp_path / "source", rows), str(tmp_path / "out"))
    assert log.left_out == {"outside of every block": 2, "quarantined": 0}
    assert sum(block.rows for block in log.blocks.values()) == 298


def test_preparing_again_changes_nothing_and_needs_no_source(shop_log: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in shop_log.rglob("*")}
    log = prepare(SHOP, str(shop_log / "nowhere"), str(shop_log / "out"))
    assert {path: path.stat().st_mtime_ns for path in shop_log.rglob("*")} == before
    assert log.fingerprint == PreparedLog.open(str(shop_log / "out")).fingerprint


def test_a_prepared_log_is_the_same_to_the_bit_wherever_it_is_written(shop_log: Path, tmp_path: Path) -> None:
    prepare(SHOP, str(shop_log / "source"), str(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(shop_log / "out")


def test_a_directory_with_a_log_of_another_schema_is_refused_and_kept(shop_log: Path) -> None:
    before = contents(shop_log / "out")
    with pytest.raises(DataError, match="out holds a log prepared with another schema"):
        prepare(shop_schema(malformed="quarantine"), str(shop_log / "source"), str(shop_log / "out"))
    assert contents(shop_log / "out") == before


def test_a_log_prepared_anew_from_a_corrected_source_knows_the_ids_of_that_source(tmp_path: Path) -> None:
    """In one process, as in a notebook: no vocabulary of the first time may be remembered."""
    out = tmp_path / "out"
    prepare(SHOP, write_source(tmp_path / "source", shop_rows()), str(out))
    shutil.rmtree(out)
    corrected = shop_rows().assign(user_id=lambda rows: rows["user_id"] + "-corrected")
    log = prepare(SHOP, write_source(tmp_path / "source", corrected), str(out))
    assert_holds(log, out, by_block(corrected))

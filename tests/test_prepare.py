"""A log becomes encoded blocks whatever its format and order, and the same ones again."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diet_ray.errors import DataError
from diet_ray.log.batches import joined
from diet_ray.log.dataset import Block, PreparedLog, check_time_order
from diet_ray.log.preparation.origin import SOURCES
from diet_ray.log.preparation.prepare import in_process, prepare
from diet_ray.log.preparation.slices import BASE_SLICES
from diet_ray.log.schema import load_schema
from tests.shop_log import (
    BLOCKS,
    EDGES,
    SHOP_YAML,
    as_ms,
    assert_holds,
    by_block,
    contents,
    decoded,
    shop_rows,
    shop_schema,
    times,
    write_source,
)

SHOP = shop_schema()
STARTS = pd.to_datetime(EDGES[:-1])
ENDS = pd.to_datetime(EDGES[1:])


def at_once(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows in the same blocks, all rows of a block at its last millisecond, user by user."""
    block_N = np.searchsorted(ENDS, rows["ts"], side="right")
    moved = rows.assign(ts=(ENDS - pd.Timedelta(milliseconds=1))[block_N])
    return moved.sort_values(["ts", "user_id"], kind="stable", ignore_index=True)


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
    hours_8 = 8 * 3_600_000
    schema = shop_schema(time={"column": "ts", "zone": "Asia/Shanghai"})
    log = prepare(schema, str(shop_log / "source"), str(tmp_path))
    assert_holds(log, tmp_path, {n: f.assign(ts=f["ts"] - hours_8) for n, f in by_block(shop_rows()).items()})
    there = PreparedLog.open(str(shop_log / "out"))
    shift = {there.blocks[name].min_ts - log.blocks[name].min_ts for name in BLOCKS}
    assert shift == {hours_8}


def test_a_threshold_makes_a_label(tmp_path: Path) -> None:
    rows = shop_rows()
    schema = shop_schema(tasks=["bought", {"name": "liked", "from": "rating", "at_least": 4}])
    log = prepare(schema, write_source(tmp_path / "source", rows, "log.csv"), str(tmp_path / "out"))
    ts = pd.concat([times(log, block) for block in log.blocks.values()])
    assert ts.tolist() == as_ms(rows["ts"]).tolist()
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


def test_a_block_has_a_part_for_each_slice_of_its_time_that_has_rows(shop_log: Path) -> None:
    log, rows = PreparedLog.open(str(shop_log / "out")), shop_rows()
    empty = 0
    for name, start, end in zip(BLOCKS, STARTS, ENDS, strict=True):
        edges = pd.date_range(start, end, BASE_SLICES + 1)
        counts = pd.cut(rows["ts"], edges, right=False).value_counts(sort=False)
        assert [part.rows for part in log.blocks[name].parts] == counts[counts > 0].tolist()
        empty += (counts == 0).sum()
    assert empty, "no slice is empty"


def test_rows_of_a_file_may_come_in_any_order(shop_log: Path, tmp_path: Path) -> None:
    """They come out by time; as no two are of one time, to the bit as they do from a log in order."""
    rows = shop_rows().sample(frac=1, random_state=0).reset_index(drop=True)
    log = prepare(SHOP, write_source(tmp_path / "source", rows), str(tmp_path / "out"))
    assert_holds(log, tmp_path / "out", by_block(rows))
    assert contents(tmp_path / "out") | {SOURCES: b""} == contents(shop_log / "out") | {SOURCES: b""}


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_rows_written_user_by_user_come_out_by_time(tmp_path: Path, name: str) -> None:
    rows, out = shop_rows(), tmp_path / "out"
    by_user = rows.sort_values(["user_id", "ts"], ascending=[True, False])
    assert (by_user["user_id"].to_numpy() != rows["user_id"].to_numpy()).mean() > 0.9
    log = prepare(SHOP, write_source(tmp_path / "source", by_user, name), str(out))
    assert_holds(log, out, by_block(rows))
    found = pd.concat(decoded(log, out).values())
    assert found["ts"].tolist() == as_ms(rows["ts"]).tolist()


def test_files_may_come_in_any_order_and_rows_come_out_by_time(tmp_path: Path) -> None:
    """The later half in the first and the last file, the earlier one between them."""
    rows, out = shop_rows(), tmp_path / "out"
    files = {"a.csv": rows[150:][::2], "b.csv": rows[:150], "c.csv": rows[150:][1::2]}
    for name, some in files.items():
        source = write_source(tmp_path / "source", some, name)
    log = prepare(SHOP, source, str(out))
    assert_holds(log, out, by_block(rows))


def test_rows_of_one_time_are_mixed_and_the_same_each_time_the_log_is_prepared(tmp_path: Path) -> None:
    rows, out = at_once(shop_rows()), tmp_path / "out"
    source = write_source(tmp_path / "source", rows)
    log = prepare(SHOP, source, str(out))
    assert_holds(log, out, by_block(rows))

    def neighbours(users: pd.Series) -> int:
        """Rows that follow one of the same user."""
        return int((users == users.shift()).sum())

    for name, frame in by_block(rows).items():
        found = decoded(log, out)[name]["user_id"]
        if name in BLOCKS[:2]:
            assert neighbours(frame["user_id"]) > 5 * neighbours(found)
    prepare(SHOP, source, str(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(out)


def test_rows_of_one_time_have_an_order_of_their_own_in_each_part_of_each_block(tmp_path: Path) -> None:
    """The same forty rows at two times of every block."""
    numbers, out = np.arange(40), tmp_path / "out"
    moments = sorted([*STARTS, *(STARTS + (ENDS - STARTS) / 2)])
    one = shop_rows(40).assign(item_id=numbers)
    rows = pd.concat([one.assign(ts=moment) for moment in moments], ignore_index=True)
    log = prepare(SHOP, write_source(tmp_path / "source", rows), str(out))
    assert_holds(log, out, by_block(rows))
    items = [half for f in decoded(log, out).values() for half in np.split(f["item_id"].astype(int), [40])]
    assert all(sorted(order) == numbers.tolist() for order in items)
    assert len({*map(tuple, items), tuple(numbers), tuple(numbers[::-1])}) == 2 * len(BLOCKS) + 2


def test_rows_of_one_time_come_the_same_from_one_file_and_from_several_in_any_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files begin and end inside a block."""
    rows = at_once(shop_rows())
    log = prepare(SHOP, write_source(tmp_path / "one", rows), str(tmp_path / "of one"))
    assert_holds(log, tmp_path / "of one", by_block(rows))
    for n, (start, stop) in enumerate([(0, 7), (7, 50), (50, 290), (290, 300)]):
        several = write_source(tmp_path / "several", rows[start:stop], f"{n}.parquet")
    prepare(SHOP, several, str(tmp_path / "of several"))
    monkeypatch.setattr("diet_ray.log.formats.columnar.BATCH_ROWS", 11)
    prepare(SHOP, several, str(tmp_path / "in batches"))
    of_one = contents(tmp_path / "of one")
    for out in ("of several", "in batches"):
        assert contents(tmp_path / out) | {SOURCES: b""} == of_one | {SOURCES: b""}


@pytest.mark.parametrize("moments", [STARTS, ENDS - pd.Timedelta(milliseconds=1)], ids=["first", "last"])
def test_a_log_whose_rows_have_one_timestamp_in_each_block_works(
    tmp_path: Path, moments: pd.DatetimeIndex
) -> None:
    """The first millisecond of the block, or the last; a block without rows is refused, so no fewer do."""
    rows, out = shop_rows(), tmp_path / "out"
    rows["ts"] = moments[np.searchsorted(ENDS, rows["ts"], side="right")]
    log = prepare(SHOP, write_source(tmp_path / "source", rows), str(out))
    assert_holds(log, out, by_block(rows))
    for block, moment in zip(log.blocks.values(), moments, strict=True):
        assert block.min_ts == block.max_ts == moment.value // 10**6
        assert len(block.parts) == 1


def test_a_block_may_be_shorter_than_its_slices_are_many(tmp_path: Path) -> None:
    """Blocks of three milliseconds, with rows at two of them."""
    start = pd.Timestamp(EDGES[0])
    edges = [str(start + pd.Timedelta(milliseconds=3 * n)) for n in range(len(BLOCKS) + 1)]
    cuts = [list(pair) for pair in pairwise(edges)]
    schema = shop_schema(blocks={"history": cuts[:2], **dict(zip(BLOCKS[2:], cuts[2:], strict=True))})
    place = np.sort(np.arange(300) % (3 * len(BLOCKS)))
    rows = shop_rows().assign(ts=start + pd.to_timedelta(place, unit="ms"))[place % 3 != 1]
    log = prepare(schema, write_source(tmp_path / "source", rows), str(tmp_path / "out"))
    assert_holds(log, tmp_path / "out", by_block(rows, edges))
    assert all(len(block.parts) == 2 for block in log.blocks.values())


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
    with pytest.raises(
        DataError, match=r"out holds a log prepared with another schema \(.+: the log has .+, this"
    ):
        prepare(shop_schema(malformed="quarantine"), str(shop_log / "source"), str(shop_log / "out"))
    assert contents(shop_log / "out") == before


def inverted(path: Path) -> None:
    """Every label the other one; the file keeps its size, and pretends to be as old as it was."""
    times, rows = path.stat(), pd.read_csv(path)
    rows[["clicked", "bought"]] = 1 - rows[["clicked", "bought"]]
    rows.to_csv(path, index=False)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size


def longer(path: Path) -> None:
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")


def one_more(path: Path) -> None:
    (path.parent / "more.csv").write_text(path.read_text())


@pytest.mark.parametrize(
    ("change", "name"), [(inverted, "log.csv"), (longer, "log.csv"), (one_more, "more.csv")]
)
def test_a_directory_whose_source_has_changed_is_refused_and_kept(
    tmp_path: Path, change: Callable[[Path], None], name: str
) -> None:
    source, out = Path(write_source(tmp_path / "source", shop_rows(), "log.csv")), tmp_path / "out"
    prepare(SHOP, str(source), str(out))
    before = contents(out)
    change(source / "log.csv")
    with pytest.raises(DataError, match=f"source has changed since .* was prepared from it .{name}.:"):
        prepare(SHOP, str(source), str(out))
    assert contents(out) == before


def test_a_side_table_that_was_corrected_is_noticed(tmp_path: Path) -> None:
    schema = shop_schema(
        fields=["user_id", "colour"],
        join=[{"files": "colours.csv", "on": "user_id"}],
        files={"patterns": ["log.*"]},
    )
    source = write_source(tmp_path / "source", shop_rows(), "log.csv")
    (tmp_path / "source/colours.csv").write_text("user_id,colour\nu1,red\n")
    prepare(schema, source, str(tmp_path / "out"))
    (tmp_path / "source/colours.csv").write_text("user_id,colour\nu1,tan\n")
    with pytest.raises(DataError, match=r"source has changed since .*\(colours.csv\)"):
        prepare(schema, source, str(tmp_path / "out"))


def test_a_log_whose_sources_were_recorded_by_size_alone_still_opens(tmp_path: Path) -> None:
    source, out = Path(write_source(tmp_path / "source", shop_rows(), "log.csv")), tmp_path / "out"
    log = prepare(SHOP, str(source), str(out))
    manifest = json.loads((out / "prepared.json").read_text())
    for key in ("missing", "quarantined_by_reason"):
        del manifest[key]
    (out / "prepared.json").write_text(json.dumps(manifest))
    (out / SOURCES).write_text(json.dumps({"log.csv": (source / "log.csv").stat().st_size}))
    assert prepare(SHOP, str(source), str(out)).blocks == log.blocks
    longer(source / "log.csv")
    with pytest.raises(DataError, match="has changed since"):
        prepare(SHOP, str(source), str(out))


def test_a_log_may_be_prepared_below_its_source_and_again(tmp_path: Path) -> None:
    rows = shop_rows()
    source = write_source(tmp_path / "source", rows)
    for name in ("prepared", "prepared", "other/prepared", "prepared"):
        out = tmp_path / "source" / name
        assert_holds(prepare(SHOP, source, str(out)), out, by_block(rows))


def test_a_linked_directory_below_the_source_is_below_it(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", shop_rows())
    (tmp_path / "link").symlink_to(tmp_path / "source")
    for _ in range(2):
        prepare(SHOP, source, str(tmp_path / "link/prepared"))


def test_a_prepared_log_is_no_source_and_a_source_no_place_for_one(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "source", shop_rows()), str(tmp_path / "out")
    with pytest.raises(DataError, match="source is the log itself: choose another directory"):
        prepare(SHOP, source, source)
    prepare(SHOP, source, out)
    with pytest.raises(DataError, match="holds no raw log: its files are those of the prepared log"):
        prepare(SHOP, out, str(tmp_path / "again"))


def test_a_log_prepared_anew_from_a_corrected_source_knows_the_ids_of_that_source(tmp_path: Path) -> None:
    """In one process, as in a notebook: no vocabulary of the first time may be remembered."""
    out = tmp_path / "out"
    prepare(SHOP, write_source(tmp_path / "source", shop_rows()), str(out))
    shutil.rmtree(out)
    corrected = shop_rows().assign(user_id=lambda rows: rows["user_id"] + "-corrected")
    log = prepare(SHOP, write_source(tmp_path / "source", corrected), str(out))
    assert_holds(log, out, by_block(corrected))

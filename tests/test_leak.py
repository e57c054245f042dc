"""No id is known before the block that first shows it, and none from validation or test."""

from pathlib import Path

import numpy as np
import pandas as pd

from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.preparation.prepare import prepare
from tests.shop_log import (
    BLOCKS,
    by_block,
    contents,
    decoded,
    increment,
    shop_rows,
    shop_schema,
    times,
    write_source,
)

SHOP = shop_schema()


def known_ids(out: Path, field: str) -> dict[str, int]:
    return {i: row for block in BLOCKS[:3] for row, i in increment(out, block, field).items()}


def test_what_comes_later_leaves_every_earlier_block_as_it_was(shop_log: Path, tmp_path: Path) -> None:
    """The rows from the subsequent block on have other ids and labels."""
    rows = shop_rows()
    late = rows["ts"] >= pd.Timestamp("2017-07-01")
    other = {"user_id": "later-" + rows["user_id"], "item_id": rows["item_id"] + 1000}
    other |= {"brand": rows["brand"] + "!", "clicked": 1 - rows["clicked"]}
    changed = rows.assign(**{name: rows[name].where(~late, value) for name, value in other.items()})
    prepare(SHOP, write_source(tmp_path / "source", changed), str(tmp_path / "out"))
    before, after = contents(shop_log / "out"), contents(tmp_path / "out")
    files = {block: [name for name in before if name.split("/")[1:2] == [block]] for block in BLOCKS}
    parts = {name: len(block.parts) for name, block in PreparedLog.open(str(tmp_path / "out")).blocks.items()}
    assert before.keys() == after.keys()
    for block in BLOCKS[:2]:
        assert len(files[block]) == parts[block] + len(SHOP.fields)
        assert all(before[name] == after[name] for name in files[block])
    late_parts = [name for block in BLOCKS[2:] for name in files[block] if name.startswith("blocks/")]
    assert len(late_parts) == sum(parts[block] for block in BLOCKS[2:])
    assert all(before[name] != after[name] for name in late_parts)


def test_an_id_has_row_0_before_the_block_that_first_shows_it_and_one_row_ever_after(shop_log: Path) -> None:
    log, frames = PreparedLog.open(str(shop_log / "out")), by_block(shop_rows())
    for f, field in enumerate(("user_id", "item_id", "brand")):
        row_of = known_ids(shop_log / "out", field)
        seen: set[str] = set()
        for name in BLOCKS:
            ids = frames[name][field]
            assert times(log, log.blocks[name]).tolist() == frames[name]["ts"].tolist()
            if name in BLOCKS[:3]:
                seen |= set(ids.dropna())
            found = joined(list(log.chunks(log.blocks[name]))).id_NF[:, f].tolist()
            assert found == [row_of[i] if i in seen else 0 for i in ids]


def test_an_id_of_validation_or_test_alone_has_row_0_and_no_place_in_a_table(tmp_path: Path) -> None:
    rows = shop_rows()
    late = rows["ts"] >= pd.Timestamp("2017-08-15")
    out = tmp_path / "out"
    rows["user_id"] = rows["user_id"].where(~late, "never before")
    log = prepare(SHOP, write_source(tmp_path / "source", rows), str(out))
    for name in BLOCKS:
        row_N = joined(list(log.chunks(log.blocks[name]))).id_NF[:, 0]
        assert (row_N == 0).all() if name in ("validation", "test") else (row_N > 0).all()
    assert log.blocks["test"].table_rows == log.blocks["subsequent"].table_rows
    assert "never before" not in known_ids(out, "user_id")


def test_tables_hold_the_rows_of_their_blocks_and_one_for_the_unknown(shop_log: Path) -> None:
    log = PreparedLog.open(str(shop_log / "out"))
    sizes = np.array([log.blocks[name].table_rows for name in BLOCKS])
    added = [[len(increment(shop_log / "out", b, field)) for field in log.fields] for b in BLOCKS[:3]]
    assert (sizes[:3] == 1 + np.cumsum(added, axis=0)).all()
    for name in BLOCKS:
        assert (joined(list(log.chunks(log.blocks[name]))).id_NF < log.blocks[name].table_rows).all()


def test_an_id_rarer_than_min_count_in_its_block_has_row_0(shop_log: Path, tmp_path: Path) -> None:
    schema = shop_schema(encoder={"kind": "vocabulary", "min_count": 5})
    log = prepare(schema, str(shop_log / "source"), str(tmp_path))
    known: set[str] = set()
    for name, frame in list(by_block(shop_rows()).items())[:3]:
        counts = frame["user_id"].value_counts()
        known |= set(counts[counts >= 5].index)
        wanted = frame["user_id"].where(frame["user_id"].isin(known), None).tolist()
        found = decoded(log, tmp_path)[name]
        assert found["ts"].tolist() == frame["ts"].tolist()
        assert found["user_id"].tolist() == wanted
    assert set(by_block(shop_rows())["0001"]["user_id"]) - known, "no user of the first block is rare"
    assert set(known_ids(tmp_path, "user_id")) == known


def test_hashed_rows_do_not_depend_on_what_was_seen(shop_log: Path, tmp_path: Path) -> None:
    schema = shop_schema(encoder={"kind": "hashed", "buckets": 10_000})
    log = prepare(schema, str(shop_log / "source"), str(tmp_path))
    row_of: dict[str | None, set[int]] = {}
    for name, frame in by_block(shop_rows()).items():
        assert log.blocks[name].table_rows == (10_001,) * 4
        assert times(log, log.blocks[name]).tolist() == frame["ts"].tolist()
        rows = joined(list(log.chunks(log.blocks[name]))).id_NF[:, 0].tolist()
        for user, row in zip(frame["user_id"], rows, strict=True):
            row_of.setdefault(user, set()).add(row)
    assert all(len(rows) == 1 and 0 not in rows for rows in row_of.values())
    assert not (tmp_path / "vocabulary").exists()


def test_hashed_rows_are_the_same_whether_files_hold_ids_as_numbers_or_as_text(
    shop_log: Path, tmp_path: Path
) -> None:
    schema, rows = shop_schema(encoder={"kind": "hashed", "buckets": 10_000}), shop_rows()
    write_source(tmp_path / "source", rows[::2], "a.parquet")
    mixed = write_source(tmp_path / "source", rows[1::2].astype({"item_id": str}), "b.parquet")
    logs = [
        prepare(schema, str(shop_log / "source"), str(tmp_path / "numbers")),
        prepare(schema, mixed, str(tmp_path / "mixed")),
    ]
    for name in BLOCKS:
        one, other = (joined(list(log.chunks(log.blocks[name]))) for log in logs)
        assert np.array_equal(one.id_NF, other.id_NF) and np.array_equal(one.label_NT, other.label_NT)

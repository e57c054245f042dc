"""A small shop's log as its owner would declare it, and how to read back what was prepared from it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml

from diet_ray.log.batches import joined
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.log.schema import LogSchema, parse_schema

SHOP_YAML = """
name: myshop
time: {column: ts, unit: timestamp}
fields: [user_id, item_id, brand, {name: hour, from: ts, as: hour}]
tasks: [clicked, bought]
blocks:
  history: [[2017-01-01, 2017-04-01], [2017-04-01, 2017-07-01]]
  subsequent: [2017-07-01, 2017-08-15]
  validation: [2017-08-15, 2017-09-01]
  test: [2017-09-01, 2017-10-01]
"""
EDGES = ["2017-01-01", "2017-04-01", "2017-07-01", "2017-08-15", "2017-09-01", "2017-10-01"]
BLOCKS = ["0001", "0002", "subsequent", "validation", "test"]

Frames = dict[str, pd.DataFrame]


def shop_schema(**changes: Any) -> LogSchema:
    return parse_schema({**yaml.safe_load(SHOP_YAML), **changes}, "myshop")


def shop_rows(rows: int = 300) -> pd.DataFrame:
    """A log in order of time, no two rows at once, whose ids drift; a few brands missing, whole seconds."""
    draw = np.random.default_rng(0)
    place_N = np.sort(draw.uniform(size=rows))
    seconds_N = (place_N * 272 * 86_400).astype(np.int64)
    return pd.DataFrame(
        {
            "ts": pd.Timestamp(EDGES[0]) + pd.to_timedelta(seconds_N, unit="s"),
            "user_id": [f"u{n}" for n in draw.integers(30, size=rows) + (20 * place_N).astype(int)],
            "item_id": draw.integers(15, size=rows) + (30 * place_N).astype(int),
            "brand": draw.choice(np.array(["acme", "ümlaut", "b, c", None], object), rows),
            "clicked": draw.integers(2, size=rows),
            "bought": draw.integers(2, size=rows),
            "rating": draw.integers(1, 6, size=rows),
        }
    )


def write_source(folder: Path, rows: pd.DataFrame, name: str = "log.parquet") -> str:
    """The folder, with the rows in it as the source that `name` says."""
    folder.mkdir(exist_ok=True, parents=True)
    rows.to_parquet(folder / name) if name.endswith(".parquet") else rows.to_csv(folder / name, index=False)
    return str(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, to the bit."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def by_block(rows: pd.DataFrame, edges: list[str] = EDGES) -> Frames:
    """The rows of each block of the shop, with ts in ms, fields as text, and tasks; by pandas alone."""
    frame = pd.DataFrame({name: as_text(rows[name]) for name in ("user_id", "item_id", "brand")})
    frame["hour"] = as_text(rows["ts"].dt.hour)
    frame[["clicked", "bought"]] = rows[["clicked", "bought"]]
    frame["ts"] = as_ms(rows["ts"])
    block_N = pd.cut(rows["ts"], pd.to_datetime(edges, format="ISO8601"), right=False, labels=BLOCKS)
    return {name: frame[block_N == name] for name in BLOCKS}


def as_text(column: pd.Series) -> pd.Series:
    """Ids as text, whole numbers without a point; None where missing."""
    texts = [None if pd.isna(x) else f"{x:.0f}" if isinstance(x, float) else str(x) for x in column]
    return pd.Series(texts, column.index, object)


def as_ms(times: pd.Series) -> pd.Series:
    """Timestamps (of UTC where they have no zone) as ms since 1970 UTC."""
    return times.dt.as_unit("ms").astype("int64")


def known_by_then(frames: Frames, fields: tuple[str, ...]) -> Frames:
    """The rows with None for each id that no block up to theirs has shown; validation and test show none."""
    seen: dict[str, set[str]] = {field: set() for field in fields}
    known = {}
    for name, frame in frames.items():
        if name not in ("validation", "test"):
            for field in fields:
                seen[field] |= set(frame[field].dropna())
        kept = {field: frame[field].where(frame[field].isin(seen[field]), None) for field in fields}
        known[name] = frame.assign(**kept)
    return known


def increment(out: Path, block: str, field: str) -> dict[int, str]:
    """Row -> id as text, of the ids that the block added."""
    table = pq.read_table(out / "vocabulary" / block / f"{field}.parquet")
    return dict(zip(table["row"].to_pylist(), map(str, table["id"].to_pylist()), strict=True))


def times(log: PreparedLog, block: Block) -> pd.Series:
    """The ts of the block's rows, file by file."""
    parts = [log.folder.read_parquet(part.stamp.path, ["ts"])["ts"].to_numpy() for part in block.parts]
    return pd.Series(np.concatenate(parts))


def decoded(log: PreparedLog, out: Path) -> Frames:
    """Each block with its ts, ids as text by the increments up to that block (None for row 0), and labels."""
    ids: dict[str, dict[int, str | None]] = {field: {0: None} for field in log.fields}
    frames = {}
    for name, block in log.blocks.items():
        if name not in ("validation", "test"):
            for field, known in ids.items():
                known.update(increment(out, name, field))
        rows = joined(list(log.chunks(block)))
        columns = {
            field: pd.Series([ids[field][row] for row in rows.id_NF[:, f].tolist()], dtype=object)
            for f, field in enumerate(log.fields)
        }
        columns |= {task: pd.Series(rows.label_NT[:, t]) for t, task in enumerate(log.tasks)}
        frames[name] = pd.DataFrame({"ts": times(log, block), **columns})
    return frames


def assert_holds(log: PreparedLog, out: Path, frames: Frames) -> None:
    """The prepared log is these rows by time, each id known from the block that first showed it.

    Rows of the same time may come in any order.
    """
    found, wanted = decoded(log, out), known_by_then(frames, log.fields)
    assert {name: block.rows for name, block in log.blocks.items()} == {n: len(f) for n, f in frames.items()}
    for name, frame in wanted.items():
        assert found[name]["ts"].is_monotonic_increasing, f"block {name} is not in order of time"
        columns = ["ts", *log.fields, *log.tasks]
        assert len(found[name]) == len(frame)
        missing = row_counts(frame[columns]) - row_counts(found[name][columns])
        assert not missing, f"block {name} lacks {missing.total()} rows, such as {next(iter(missing))}"


def row_counts(frame: pd.DataFrame) -> Counter[tuple[Any, ...]]:
    """How often each row occurs."""
    return Counter(frame.itertuples(index=False, name=None))

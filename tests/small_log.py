"""Small logs of any file format, prepared in this process, and what they are encoded to."""

import csv
import gzip
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq

from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.schema import LogSchema, parse_schema
from diet_ray.storage import Folder

START_S, BLOCK_S = 1_600_000_000, 1_000
BLOCKS = ("0001", "0002", "subsequent", "validation", "test")
SPAN_S = BLOCK_S * len(BLOCKS)


def small_schema(**changes: Any) -> LogSchema:
    """One field and one task; times in seconds, five blocks from START_S on."""
    edges = [datetime.fromtimestamp(START_S + BLOCK_S * n, UTC).isoformat() for n in range(len(BLOCKS) + 1)]
    cuts = [list(pair) for pair in pairwise(edges)]
    plain = {
        "name": "small",
        "time": {"column": "ts", "unit": "s"},
        "fields": ["user"],
        "tasks": ["clicked"],
        "blocks": {"history": cuts[:2], "subsequent": cuts[2], "validation": cuts[3], "test": cuts[4]},
    }
    return parse_schema({**plain, **changes}, "small")


def filled(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns with a time in every block in turn, and labels, where they give none."""
    rows = len(next(iter(columns.values())))
    times = [START_S + n % len(BLOCKS) * BLOCK_S + n // len(BLOCKS) for n in range(rows)]
    return {"ts": times, "clicked": [n % 2 for n in range(rows)], "user": ["u"] * rows, **columns}


def write_table(path: Path, columns: Mapping[str, pa.Array | list[Any]]) -> None:
    """The columns as a file of the format that the name says; in text formats null is the empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(columns))
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".orc":
        pyarrow.orc.write_table(table, str(path))
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in table.to_pylist()]
        path.write_text("\n".join(lines) + "\n", "utf-8")
    else:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter="\t" if ".tsv" in path.name else ",", lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(zip(*table.to_pydict().values(), strict=True))
        content = text.getvalue().encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def prepared(folder: Path, schema: LogSchema, files: Mapping[str, Mapping[str, Any]]) -> PreparedLog:
    """The log of files by name, each given by its columns."""
    for name, columns in files.items():
        write_table(folder / "log" / name, columns)
    return prepare(schema, str(folder / "log"), str(folder / "out"))


def encoding(schema: LogSchema, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the files are encoded to, without a trace on disk."""
    with TemporaryDirectory() as folder:
        out = f"memory:/{folder}"
        for name, columns in files.items():
            write_table(Path(folder) / name, columns)
        try:
            return encoded(prepare(schema, folder, out))
        finally:
            Folder.at(out).fs.rm(Folder.at(out).root, recursive=True)


def encoded(log: PreparedLog) -> dict[str, Any]:
    """What training sees of a log: ids and labels of each block, and the sizes of its tables."""
    found = {}
    for name, block in log.blocks.items():
        rows = joined(list(log.chunks(block)))
        found[name] = (block.table_rows, rows.id_NF.tolist(), rows.label_NT.tolist())
    return found


def quarantine(folder: Path) -> list[dict[str, Any]]:
    """The rows that were set aside, in order of file and row."""
    files = sorted((folder / "out" / "quarantine").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]

"""The first rows of a raw log as the schema understands them, read before anything is prepared."""

import time
from collections import Counter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import DataError
from diet_ray.log.normalise import normalise
from diet_ray.log.preparation.origin import raw_files, source_name
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import Chunk, chunks

ROWS = 1000  # of each file
CHECK_S = 5.0
SAMPLES = 3  # ids shown of a field


class FilePreview(NamedTuple):
    """The first rows of one file."""

    name: str  # relative to the source
    types: dict[str, str]  # column -> type in the file
    rows: pa.Table | None  # normalised; None where they cannot be
    quarantined: Counter[str]  # reason -> rows
    problem: str | None


class FieldPreview(NamedTuple):
    samples: list[str]  # the most frequent ids
    distinct: int
    missing: float  # share of the rows


class Preview(NamedTuple):
    """The first rows of all files together."""

    files: list[FilePreview]
    rows: int
    outside: int  # rows that belong to no block
    span: tuple[int, int] | None  # first and last time, ms since 1970 UTC
    fields: dict[str, FieldPreview]
    label_rates: dict[str, float]
    quarantined: Counter[str]  # reason -> rows
    problems: list[str]


def preview(schema: LogSchema, source: str) -> Preview:
    """What the first ROWS rows of each file of `source` become; nothing is written.

    A file that cannot be read is a problem of the preview; DataError where there is no file at all.
    """
    files = [preview_file(path, schema, source) for path in raw_files(schema, source)]
    tables = [file.rows for file in files if file.rows is not None]
    problems = [file.problem for file in files if file.problem]
    quarantined = sum((file.quarantined for file in files), Counter[str]())
    if not sum(table.num_rows for table in tables):
        return Preview(files, 0, 0, None, {}, {}, quarantined, problems)
    columns = {
        name: pa.chunked_array([chunk for table in tables for chunk in table[name].cast(kind).chunks])
        for name, kind in _kinds(schema).items()
    }
    rows = pa.table(columns)
    ends = pc.min_max(rows["ts"]).as_py()
    rates = {task: pc.mean(rows[task]).as_py() for task in schema.task_names}
    constant = [task for task, rate in rates.items() if rate in (0, 1)]
    problems += [f"label {task} is {rates[task]:.0f} in all of these rows" for task in constant]
    return Preview(
        files=files,
        rows=rows.num_rows,
        outside=_outside(rows["ts"], schema),
        span=(ends["min"], ends["max"]),
        fields={name: _field(rows[name]) for name in schema.field_names},
        label_rates=rates,
        quarantined=quarantined,
        problems=problems,
    )


def check_first_rows(schema: LogSchema, source: str, out: str) -> None:
    """Raise the first error in the first rows of the files, as far as CHECK_S seconds reach.

    What shows there (a misspelt column, times of another form) need not wait for a cluster.
    """
    started = time.monotonic()
    for path in raw_files(schema, source, out):
        chunk = _first_rows(path, schema, source)
        if chunk:
            normalise(chunk, schema)
        if time.monotonic() - started > CHECK_S:
            return


def preview_file(path: str, schema: LogSchema, source: str) -> FilePreview:
    name, types = source_name(source, path), dict[str, str]()
    try:
        chunk = _first_rows(path, schema, source)
        if chunk is None:
            return FilePreview(name, types, None, Counter(), f"{path} has no rows")
        types = {column.name: str(column.type) for column in chunk.table.schema}
        normal = normalise(chunk, schema)
    except (DataError, OSError) as wrong:
        return FilePreview(name, types, None, Counter(), str(wrong))
    return FilePreview(name, types, normal.rows, Counter(normal.rejected["reason"].to_pylist()), None)


def _first_rows(path: str, schema: LogSchema, source: str) -> Chunk | None:
    for chunk in chunks(path, schema, source):
        if chunk.table.num_rows:
            return chunk._replace(row=chunk.row[:ROWS], table=chunk.table.slice(0, ROWS))
    return None


def _kinds(schema: LogSchema) -> dict[str, pa.DataType]:
    """Type of each normalised column."""
    fields = dict.fromkeys(schema.field_names, pa.string())
    return {"ts": pa.int64(), **fields, **dict.fromkeys(schema.task_names, pa.uint8())}


def _outside(ts: pa.ChunkedArray, schema: LogSchema) -> int:
    inside = pa.scalar(0)
    for start, end in schema.intervals().values():
        here = pc.and_(pc.greater_equal(ts, start), pc.less(ts, end))
        inside = pc.add(inside, pc.coalesce(pc.sum(here), 0))
    return len(ts) - int(inside.as_py())


def _field(ids: pa.ChunkedArray) -> FieldPreview:
    counts = Counter(ids.drop_null().to_pylist())
    samples = [id for id, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:SAMPLES]]
    return FieldPreview(samples, len(counts), ids.null_count / max(1, len(ids)))

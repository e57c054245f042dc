"""A raw chunk to what every log looks like here: ts in ms, one id column per field, labels 0 or 1.

Shape suffixes: N rows.
"""

from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.errors import DataError
from diet_ray.log.declaration import FieldConfig
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import Chunk
from diet_ray.log.values.columns import decoded, is_bytes, plain
from diet_ray.log.values.conditions import label, verdict
from diet_ray.log.values.dates import readings_of
from diet_ray.log.values.ids import Ids, coded, ids_of, number_text, without_missing
from diet_ray.log.values.numbers import decimal_of, mask
from diet_ray.log.values.times import times_of

Rows = TypeVar("Rows", pa.Table, pa.Array)
NOT_A_TIME = "is missing or not a time"
EVENT = "event id"  # a column that no field or task is called

# What is counted, but does not cost a row.
HEADERS = "repeated header lines left out"
REPEATED = "times in an hour that comes twice, taken as the first"
SKIPPED = "times that the clock skips, moved to the end of the gap"


class Normalised(NamedTuple):
    rows: pa.Table
    row: pa.Array  # number of each of `rows` in its file, from 1
    rejected: pa.Table  # as they came, with file, row (from 1) and reason
    notes: Counter[str]  # HEADERS, REPEATED, SKIPPED -> how many


class Faults:
    """The first reason, row by row, why a row cannot be taken."""

    def __init__(self, rows: int) -> None:
        self.reason_N: NDArray[np.object_] = np.full(rows, None, dtype=object)

    def add(self, bad_N: NDArray[np.bool_], reason: str) -> None:
        if bad_N.any():
            self.reason_N[bad_N & self.none()] = reason

    def none(self) -> NDArray[np.bool_]:
        """Which rows have no fault; [N]."""
        return self.reason_N == np.array(None, dtype=object)


def normalise(chunk: Chunk, schema: LogSchema, *, as_codes: bool = False) -> Normalised:
    """Apply the schema's filter, time, fields and tasks to a chunk.

    as_codes: ids come as dictionaries (codes of distinct texts), for half the time and memory; else as text.
    Raises DataError naming file, row and column of the first malformed row where `schema.malformed` is error.
    """
    raw = {name: plain(chunk.table[name]) for name in chunk.table.column_names}
    faults = Faults(chunk.table.num_rows)
    table, bad_N = _texts(raw, schema, faults)
    kept_N = _filtered(table, schema, bad_N, faults, chunk.path)
    table, came, row = (_where(rows, kept_N) for rows in (table, pa.table(raw), chunk.row))
    faults.reason_N = faults.reason_N[kept_N]
    columns, notes = _columns(table, schema, faults, chunk.path, as_codes=as_codes)
    notes[HEADERS] = chunk.headers
    rejected = _rejected(chunk, came, row, faults)
    if schema.malformed == "error" and rejected.num_rows:
        advice = "set malformed: quarantine in the schema to set such rows aside" if schema.tasks else ""
        raise DataError(_first_fault(rejected, chunk.path, advice or "correct the row or leave it out"))
    good_N = faults.none()
    return Normalised(_where(pa.table(columns), good_N), _where(row, good_N), rejected, +notes)


def _where(rows: Rows, wanted_N: NDArray[np.bool_]) -> Rows:
    """The wanted rows; filtering copies, and mostly all are wanted."""
    return rows if wanted_N.all() else rows.filter(pa.array(wanted_N))


def _texts(
    raw: dict[str, pa.Array], schema: LogSchema, faults: Faults
) -> tuple[pa.Table, dict[str, NDArray[np.bool_]]]:
    """The columns with null for no value and for bytes that are not UTF-8; and where such bytes are."""
    columns, bad_N = dict(raw), {}
    for name, column in raw.items():
        if is_bytes(column.type):
            columns[name], bad = decoded(column)
            bad_N[name] = mask(bad)
            faults.add(bad_N[name], f"{name} is not UTF-8 text")
    return pa.table({name: without_missing(x, schema.missing) for name, x in columns.items()}), bad_N


def _filtered(
    table: pa.Table, schema: LogSchema, bad_N: dict[str, NDArray[np.bool_]], faults: Faults, path: str
) -> NDArray[np.bool_]:
    """Which rows the filters keep: those that pass all of them, and those that cannot be compared."""
    kept_N = np.ones(table.num_rows, bool)
    for test in schema.where:
        try:
            result = verdict(_array(table, test.column), test)
        except pa.ArrowException as wrong:
            raise _cannot(path, test.column, "be compared", wrong) from wrong
        kept_N &= result.passes_N | result.bad_N | bad_N.get(test.column, False)
        faults.add(result.bad_N, f"{test.column} is not {result.fault}")
    return kept_N


def _columns(
    table: pa.Table, schema: LogSchema, faults: Faults, path: str, *, as_codes: bool
) -> tuple[dict[str, pa.Array], Counter[str]]:
    columns: dict[str, Any] = {}
    notes = Counter[str]()
    if schema.needs_time:
        times = times_of(_array(table, schema.time.column), schema.time, path)
        faults.add(times.bad_N, f"{schema.time.column} {NOT_A_TIME}")
        columns["ts"] = pa.array(times.ms_N)
        notes = Counter({REPEATED: int(times.repeated_N.sum()), SKIPPED: int(times.skipped_N.sum())})
    for field in schema.fields:
        if field.part:
            parts = _part_of_time(columns["ts"], field.part, schema.time.zone)
            columns[field.name] = parts.dictionary_encode() if as_codes else parts
            continue
        try:
            array, of = _array(table, field.source), partial(_ids, field=field)
            ids = coded(array, of) if as_codes else of(array)
        except pa.ArrowException as wrong:
            raise _cannot(path, field.source, "be a field", wrong) from wrong
        faults.add(ids.bad_N, ids.reason)
        columns[field.name] = ids.values
    for task in schema.tasks:
        try:
            columns[task.name], bad_N, reason = label(_array(table, task.source), task)
        except pa.ArrowException as wrong:
            raise _cannot(path, task.source, "be compared", wrong) from wrong
        faults.add(bad_N, reason)
    if schema.event_id:
        events = ids_of(_array(table, schema.event_id), schema.event_id)
        faults.add(events.bad_N, events.reason)
        columns[EVENT] = events.values
    return columns, notes


def _array(table: pa.Table, name: str) -> pa.Array:
    return plain(table[name])


def _cannot(path: str, column: str, what: str, wrong: Exception) -> DataError:
    return DataError(f"{path}, column {column} cannot {what}: {wrong}")


def _part_of_time(ts: pa.Array, part: str, zone: str) -> pa.Array:
    """The hour, or the weekday from Monday (0), on the clock of a zone."""
    local = ts.cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("ms", zone))
    return (pc.hour(local) if part == "hour" else pc.day_of_week(local)).cast(pa.string())


def _ids(array: pa.Array, field: FieldConfig) -> Ids:
    ids = ids_of(array, field.source)
    return ids if field.at_most is None else _capped(ids, field)


def _capped(ids: Ids, field: FieldConfig) -> Ids:
    """Larger numbers as the cap."""
    cap = field.at_most
    assert cap is not None
    coded = ids.values.dictionary_encode()
    numbers = [decimal_of(text) for text in coded.dictionary.to_pylist()]
    texts = [None if x is None else number_text(min(x, Decimal(cap))) for x in numbers]
    values = pa.array(texts, pa.string()).take(coded.indices)
    bad_N = ids.bad_N | mask(pc.and_(pc.is_null(values), pc.is_valid(ids.values)))
    return Ids(values, bad_N, f"{field.source} is not a number")


def _rejected(chunk: Chunk, came: pa.Table, row: pa.Array, faults: Faults) -> pa.Table:
    """Rows with a fault and rows that could not be read, in their order."""
    bad_N = ~faults.none()
    names = ("file", "row", "reason", "line")
    came = came.rename_columns(
        [f"{name} of the log" if name in names else name for name in came.column_names]
    )
    faulty = _where(came, bad_N)
    added = {
        "file": pa.array([chunk.path] * faulty.num_rows, pa.string()),
        "row": _where(row, bad_N),
        "reason": pa.array(faults.reason_N[bad_N], pa.string()),
    }
    for name, column in added.items():
        faulty = faulty.append_column(name, column)
    if not chunk.unread:
        return faulty
    rows, lines, reasons = zip(*chunk.unread, strict=True)
    unread = pa.table(
        {
            "file": pa.array([chunk.path] * len(rows), pa.string()),
            "row": pa.array(rows, pa.int64()),
            "reason": pa.array(reasons, pa.string()),
            "line": pa.array(lines, pa.string()),
        }
    )
    return pa.concat_tables([faulty, unread], promote_options="default").sort_by("row")


def _first_fault(rejected: pa.Table, path: str, advice: str) -> str:
    first = rejected.slice(0, 1).to_pylist()[0]
    reason = first["reason"]
    cells = {name: value for name, value in first.items() if reason.startswith(f"{name} ")}
    shown = f": {cells}" if cells else f": {first['line']!r}" if first.get("line") else ""
    if reason.endswith(NOT_A_TIME):
        texts = [value for value in cells.values() if isinstance(value, str)]
        shown += "".join(f" ({reading})" for reading in map(readings_of, texts) if reading)
    return f"{path}, row {first['row']}: {reason}{shown}; {advice}"

"""A raw chunk to what every log looks like here: ts in ms, one id column per field, labels 0 or 1."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import DataError
from diet_ray.log.schema import Condition, FieldConfig, LogSchema, TimeConfig
from diet_ray.log.source import Chunk

EVENT = "event id"  # a column that no field or task is called


class Normalised(NamedTuple):
    rows: pa.Table
    row: pa.Array  # number of each of `rows` in its file, from 1
    rejected: pa.Table  # as they came, with file, row (from 1) and reason


def normalise(chunk: Chunk, schema: LogSchema) -> Normalised:
    """Apply the schema's filter, time, fields and tasks to a chunk.

    Raises DataError naming file, row and column of the first malformed row where `schema.malformed` is error.
    """
    table = pa.table({name: _nan_is_missing(chunk.table[name]) for name in chunk.table.column_names})
    row = chunk.row
    for test in schema.where:
        passes = _passes(table[test.column], test, f"{chunk.path}, column {test.column}")
        table, row = table.filter(passes), row.filter(passes)
    reason = np.full(table.num_rows, None, dtype=object)
    ts = _milliseconds(table[schema.time.column], schema.time, chunk.path)
    reason[pc.is_null(ts).to_numpy(zero_copy_only=False)] = f"{schema.time.column} is missing or not a time"
    columns = {"ts": ts}
    for field in schema.fields:
        try:
            columns[field.name] = _field(table[field.source], ts, field, schema.time.zone)
        except pa.ArrowException as wrong:
            raise DataError(f"{chunk.path}, column {field.source} cannot be a field: {wrong}") from wrong
    for task in schema.tasks:
        value, fault = table[task.source], "not 0 or 1"
        if task.condition is not None:
            value = value if task.at_least is None else _numbers(value)
            value = _passes(value, task.condition, f"{chunk.path}, column {task.source}")
            fault = "missing" if task.at_least is None else "missing or not a number"
        columns[task.name], bad_N = _label(value)
        reason[bad_N & (reason == None)] = f"{task.source} is {fault}"  # noqa: E711
    if schema.event_id:
        columns[EVENT] = table[schema.event_id].cast(pa.string())
    good_N = pd.isna(reason)
    if schema.malformed == "error" and not good_N.all():
        first = int(np.flatnonzero(~good_N)[0])
        raise DataError(
            f"{chunk.path}, row {row[first]}: {reason[first]}: "
            f"{ {k: v for k, v in table.slice(first, 1).to_pylist()[0].items() if k in reason[first]} }; "
            "set malformed: quarantine in the schema to set such rows aside"
        )
    added = {
        "file": pa.array([chunk.path] * table.num_rows),
        "row": row,
        "reason": pa.array(reason, pa.string()),
    }
    came = {f"{name} of the log" if name in added else name: table[name] for name in table.column_names}
    rejected = pa.table({**came, **added}).filter(pa.array(~good_N))
    good = pa.array(good_N)
    return Normalised(pa.table(columns).filter(good), row.filter(good), rejected)


def _nan_is_missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _milliseconds(column: pa.ChunkedArray, time: TimeConfig, path: str) -> pa.Array:
    """Time as int64 ms since 1970 UTC; null where it cannot be read."""
    if time.unit in ("s", "ms", "us"):
        value = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64)
        # A time just before a block's end stays there; seconds are too coarse in float64 to be cut.
        ms_N = (
            np.floor(value / 1000)
            if time.unit == "us"
            else np.round(value * {"s": 1000.0, "ms": 1.0}[time.unit])
        )
        # NaN, infinite, or beyond the year 9999.
        bad_N = ~(np.abs(ms_N) < 2.5e14)
        return pa.array(np.where(bad_N, 0, ms_N).astype(np.int64), mask=bad_N)
    if time.unit == "mmdd":
        text = column.cast(pa.string()).to_pandas().str.zfill(4)
        stamps = pd.to_datetime(str(time.year) + text, format="%Y%m%d", errors="coerce")
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        raise DataError(f"{path}, column {time.column} holds numbers: set time.unit to s, ms, us or mmdd")
    else:
        try:
            stamps = _stamps(column)
        except (TypeError, ValueError) as wrong:
            raise DataError(f"{path}, column {time.column}: {wrong}") from wrong
    series = pd.Series(pd.DatetimeIndex(stamps))
    if series.dt.tz is None:
        series = series.dt.tz_localize(time.zone, ambiguous="NaT", nonexistent="shift_forward")
    ms = series.dt.tz_convert("UTC").dt.as_unit("ms")
    return pa.array(ms.astype("int64").to_numpy(), mask=ms.isna().to_numpy())


def _stamps(column: pa.ChunkedArray) -> pd.Series:
    """Each value by itself where it is ISO 8601, else in the form of the first one."""
    values = column.to_pandas()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return pd.to_datetime(values, errors="coerce")
    try:
        stamps = pd.to_datetime(values, errors="coerce", format="ISO8601")
    except ValueError:  # not all have the same offset from UTC
        stamps = pd.to_datetime(values, errors="coerce", format="ISO8601", utc=True)
    return pd.to_datetime(values, errors="coerce") if stamps.isna().all() else stamps


def _field(column: pa.ChunkedArray, ts: pa.Array, field: FieldConfig, zone: str) -> pa.Array:
    if field.part:
        local = pd.DatetimeIndex(pd.to_datetime(ts.to_pandas(), unit="ms", utc=True)).tz_convert(zone)
        value = local.hour if field.part == "hour" else local.dayofweek
        return pa.array(value.to_numpy(), pa.int64(), from_pandas=True)
    ids = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if field.at_most is not None:
        ids = pc.min_element_wise(ids, field.at_most, skip_nulls=False)
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    # uint64 holds more than int64 does.
    return ids.cast(pa.int64() if pa.types.is_integer(ids.type) and ids.type != pa.uint64() else pa.string())


def _passes(column: pa.ChunkedArray, test: Condition, where: str) -> pa.Array:
    """Boolean, null where the value is missing."""
    try:
        if test.equals is not None:
            wanted = pa.scalar(test.equals)
            return pc.equal(
                column, wanted.cast(column.type) if not pa.types.is_string(column.type) else str(test.equals)
            )
        if test.at_least is not None:
            return pc.greater_equal(column, test.at_least)
        return pc.less_equal(column, test.at_most)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as wrong:
        raise DataError(f"{where} holds {column.type}, which cannot be compared: {wrong}") from wrong


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column; as numbers where it is text, which one bad value makes of a whole CSV column."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    value_N = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return pa.chunked_array([pa.array(value_N, from_pandas=True)])


def _label(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    value = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad_N = ~((value == 0) | (value == 1))
    return pa.array(np.where(bad_N, 0, value).astype(np.uint8)), bad_N

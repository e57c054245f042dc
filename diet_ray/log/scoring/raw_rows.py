"""Raw rows in memory as a chunk of a log: a pandas frame, an Arrow table, or a list of dicts."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.formats.batch import check_unique
from diet_ray.log.schema import LogSchema
from diet_ray.log.side_tables import Joined, with_sides
from diet_ray.log.source import Chunk
from diet_ray.log.values.columns import checked, plain
from diet_ray.log.values.ids import json_text

RawRows: TypeAlias = pd.DataFrame | pa.Table | pa.RecordBatch | Sequence[Mapping[str, Any]]
NAME = "the table"  # what messages call the rows, whatever holds them


def chunk_of(rows: RawRows, schema: LogSchema, sides: list[Joined]) -> Chunk:
    """The rows with the columns of the schema, side tables joined.

    The keys of dicts may be absent in some rows, as in JSON lines: such a value is missing.

    Raises:
        DataError: where a column is missing, or there twice, or the rows are of another type.
    """
    columns = names_of(rows)
    elsewhere = {name for side in sides for name in side.table.column_names if name != side.on}
    wanted = schema.columns()
    missing = [name for name in wanted if name not in columns and name not in elsewhere]
    if missing and len(rows):
        raise DataError(f"{NAME} has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    own = [name for name in wanted if name in columns]
    check_unique([name for name in columns if name in own], NAME)
    table = pa.table({name: _column(rows, name) for name in own} | {name: pa.nulls(0) for name in missing})
    return Chunk(NAME, pa.array(np.arange(1, len(rows) + 1)), with_sides(table, sides, schema))


def names_of(rows: RawRows) -> list[str]:
    """The names of the columns, with repetitions; DataError where the rows are of none of the types."""
    if isinstance(rows, pa.Table | pa.RecordBatch):
        return list(rows.schema.names)
    if isinstance(rows, pd.DataFrame):
        return [str(name) for name in rows.columns]
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Sequence):
        raise DataError(
            f"rows are a pandas frame, an Arrow table or a list of dicts, but this is a {type(rows).__name__}"
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{NAME}, row {number} is a {type(row).__name__}, expected a dict")
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _column(rows: RawRows, name: str) -> pa.Array:
    if isinstance(rows, pa.Table | pa.RecordBatch):
        return checked(plain(rows[name]))
    values = rows[name] if isinstance(rows, pd.DataFrame) else [row.get(name) for row in rows]
    try:
        return checked(plain(pa.array(values, from_pandas=True)))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):  # values of several types
        return pa.array([_text(value, name, n) for n, value in enumerate(values, start=1)], pa.string())


def _text(value: Any, name: str, row: int) -> str | None:
    """A value as JSON lines hold it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, date | datetime):
        value = value.isoformat()
    try:
        text = value.decode() if isinstance(value, bytes) else json_text(value)
        if text is not None:
            text.encode()
    except ValueError as wrong:
        raise DataError(f"{NAME}, row {row}: {name} is {wrong}") from wrong
    return text

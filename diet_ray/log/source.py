"""Raw log files as chunks of rows, side tables joined, cells as the file stores them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.files import partitions
from diet_ray.log.formats.batch import Batch, TableFile, Unread, check_unique
from diet_ray.log.formats.json_lines import JsonLines
from diet_ray.log.formats.opening import DAMAGED, damaged, open_table
from diet_ray.log.schema import LogSchema
from diet_ray.log.side_tables import Joined, side_tables, with_sides


class Chunk(NamedTuple):
    """Rows of one file (or partition of a topic), each with its number there, from 1."""

    path: str
    row: pa.Array  # int64
    table: pa.Table
    unread: tuple[Unread, ...] = ()  # rows among them that could not be read
    headers: int = 0  # header lines among them, left out
    stop: int = 0  # number of the last of all these rows


def chunks(
    path: str,
    schema: LogSchema,
    source: str,
    *,
    sides: list[Joined] | None = None,
    keep: Sequence[str] = (),
) -> Iterator[Chunk]:
    """Stream one file with the columns of the schema, side tables and partitions joined.

    sides: the side tables, where they do not lie at the source. keep: columns besides those of the schema.
    Raises DataError naming the file where a column is missing or there twice, or the file is damaged.
    """
    sides = side_tables(source, schema) if sides is None else sides
    constants = partitions(source, path)
    wanted, row = list(dict.fromkeys([*schema.columns(), *keep])), 0
    with open_table(path, schema.files) as file:
        own = _own_columns(file, path, wanted, schema, sides, constants)
        try:
            for batch in file.batches(own):
                row = batch.stop
                yield Chunk(
                    path,
                    pa.array(batch.row_N),
                    with_sides(_with_constants(batch, wanted, constants), sides, schema),
                    batch.unread,
                    batch.headers,
                    batch.stop,
                )
        except DAMAGED as broken:
            raise damaged(path, broken, row) from broken


def _own_columns(
    file: TableFile,
    path: str,
    wanted: list[str],
    schema: LogSchema,
    sides: list[Joined],
    constants: dict[str, str | None],
) -> list[str]:
    """Columns to be read from the file itself, one at least, for they carry the number of its rows."""
    elsewhere = {*constants, *(name for side in sides for name in side.table.column_names if name != side.on)}
    missing = [name for name in wanted if name not in file.columns and name not in elsewhere]
    if missing and not isinstance(file, JsonLines):  # whose keys may come later
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {_listed(file.columns, schema)}")
    own = [name for name in wanted if name in file.columns or name in missing] or file.columns[:1]
    check_unique([name for name in file.columns if name in own], path)
    return own


def _listed(columns: list[str], schema: LogSchema) -> str:
    listed = ", ".join(columns)
    if len(columns) == 1 and schema.files.separator == "auto":
        for separator in (";", "|", "\t", ","):
            if separator in listed:
                return f"{listed} (one column: set files.separator to {separator!r}?)"
    return listed


def _with_constants(batch: Batch, wanted: list[str], constants: dict[str, str | None]) -> pa.Table:
    table = batch.table
    for name in wanted:
        if name in constants and name not in table.column_names:
            value = pa.scalar(constants[name], pa.string())
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table

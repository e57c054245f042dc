"""Files of raw rows as pieces to be scored: a row per row of the file, in its order.

Shape suffixes: N rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.formats.opening import open_table
from diet_ray.log.schema import LogSchema
from diet_ray.log.scoring.fields import FieldReader
from diet_ray.log.source import Chunk, chunks

PIECE_ROWS = 65_536
FIELD, KEPT, READABLE = "field ", "kept ", "readable"  # columns of a piece: a prefix before their names


def pieces_of_file(
    path: str, source: str, reader: FieldReader, keep: Sequence[str], kinds: pa.Schema | None = None
) -> Iterator[pa.Table]:
    """Stream a file: the fields' ids as text, the columns `keep`, and which rows could be read.

    kinds: types that the kept columns are given, as those of the first file are. Raises DataError naming the
    file and a column that is missing or of another type, or the first row that cannot be read where the
    schema does not say `quarantine`.
    """
    for chunk in chunks(path, reader.schema, source, sides=reader.sides, keep=keep):
        table = _whole(chunk, reader, keep)
        if kinds is not None:
            table = _cast(table, kinds, path)
        for start in range(0, table.num_rows, PIECE_ROWS):
            yield table.slice(start, PIECE_ROWS)


def first_kinds(paths: Sequence[str], source: str, reader: FieldReader, keep: Sequence[str]) -> pa.Schema:
    """The types of the kept columns in the first file with rows; text where there are none.

    Raises as `pieces_of_file` does for that file's beginning.
    """
    for path in paths:
        for piece in pieces_of_file(path, source, reader, keep):
            kinds = kept_of(piece).schema
            texts = [k.with_type(pa.string()) if pa.types.is_null(k.type) else k for k in kinds]
            return pa.schema([kind.with_nullable(True) for kind in texts])
    return pa.schema([(name, pa.string()) for name in keep])


def stored_rows(paths: Sequence[str], schema: LogSchema) -> int | None:
    """Rows of all files by what their formats record; None where one records nothing, or there are none."""
    rows = 0
    for path in paths:
        with open_table(path, schema.files) as file:
            count = getattr(file, "rows", None)
        if count is None:
            return None
        rows += count
    return rows or None


def texts_of(piece: pa.Table) -> pa.Table:
    """The fields of a piece's readable rows."""
    fields = [name for name in piece.column_names if name.startswith(FIELD)]
    return piece.filter(piece[READABLE]).select(fields)


def kept_of(piece: pa.Table) -> pa.Table:
    """The kept columns of a piece, by their own names."""
    names = [name for name in piece.column_names if name.startswith(KEPT)]
    return piece.select(names).rename_columns([name.removeprefix(KEPT) for name in names])


def _whole(chunk: Chunk, reader: FieldReader, keep: Sequence[str]) -> pa.Table:
    """All rows of a chunk, those that could not be read with nulls."""
    fields = reader.of_chunk(chunk)
    unread = np.array([each.row for each in chunk.unread], np.int64)
    row_N = np.sort(np.concatenate([chunk.row.to_numpy(), unread]))
    texts = fields.texts.take(_places(fields.row_N, row_N))
    kept = chunk.table.take(_places(chunk.row.to_numpy(), row_N))
    columns = {f"{FIELD}{name}": texts[name] for name in texts.column_names}
    columns |= {f"{KEPT}{name}": kept[name] for name in keep}
    return pa.table(columns | {READABLE: np.isin(row_N, fields.row_N)})


def _places(have_N: np.ndarray, want_N: np.ndarray) -> pa.Array:
    """Where each wanted row lies among those there are (ascending); null where it does not."""
    place_N = np.searchsorted(have_N, want_N)
    return pa.array(place_N, mask=~np.isin(want_N, have_N))


def _cast(table: pa.Table, kinds: pa.Schema, path: str) -> pa.Table:
    for kind in kinds:
        name = f"{KEPT}{kind.name}"
        try:
            column = table[name].cast(kind.type)
        except pa.ArrowException as wrong:
            raise DataError(
                f"{path}: column {kind.name} is {table[name].type}, in the first file {kind.type}: {wrong}"
            ) from wrong
        table = table.set_column(table.column_names.index(name), name, column)
    return table

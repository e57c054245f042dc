"""Side tables: columns that are joined to the rows of a log by a key."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import layout
from diet_ray.errors import DataError
from diet_ray.log.declaration import FilesConfig
from diet_ray.log.files import matching_files, side_folder, url_of
from diet_ray.log.formats.batch import check_unique
from diet_ray.log.formats.opening import open_table
from diet_ray.log.schema import LogSchema
from diet_ray.log.values.columns import plain
from diet_ray.log.values.ids import ids_of, without_missing
from diet_ray.storage import Folder


class Joined(NamedTuple):
    """A side table in memory."""

    on: str
    table: pa.Table  # one row per key, keys as ids are written


def side_tables(source: str, schema: LogSchema) -> list[Joined]:
    """The side tables of a schema, whole in memory. DataError names one that cannot be used."""
    folder, tables = side_folder(source), []
    for side in schema.join:
        paths = matching_files(folder, (side.files,))
        if not paths:
            raise DataError(f"no file at {source} matches {side.files}")
        urls = [url_of(folder, path) for path in paths]
        # The version keeps a table that was corrected from being taken out of the cache.
        versions = tuple((url, folder.fs.ukey(path)) for url, path in zip(urls, paths, strict=True))
        tables.append(Joined(side.on, _read(versions, side.on, schema)))
    return tables


def keep_side_tables(folder: Folder, source: str, schema: LogSchema) -> None:
    """Store the side tables with a prepared log, for rows that are to be scored without the source."""
    for number, side in enumerate(side_tables(source, schema)):
        folder.write_parquet(layout.side_table(number), side.table)


@lru_cache(maxsize=4)
def _read(versions: tuple[tuple[str, str], ...], on: str, schema: LogSchema) -> pa.Table:
    tables = [table for url, _ in versions for table in _file(url, on, schema)]
    side = _alike(tables)
    codes = side[on].combine_chunks().dictionary_encode().indices
    # Of several rows with one key the first counts.
    first_N = np.unique(codes.to_numpy(), return_index=True)[1]
    return side.take(pa.array(np.sort(first_N))).combine_chunks()


def _file(url: str, on: str, schema: LogSchema) -> Iterator[pa.Table]:
    """The wanted columns of one file, the key as ids are written, without the rows that have none."""
    with open_table(url, _files(url, on, schema)) as file:
        if on not in file.columns:
            raise DataError(f"{url} has no column {on} to join by; it has {', '.join(file.columns)}")
        names = [name for name in file.columns if name in schema.columns()]
        check_unique(names, url)
        yield pa.table({name: pa.nulls(0) for name in names})
        for batch in file.batches(names):
            if batch.unread:
                raise DataError(f"{url}, row {batch.unread[0].row}: {batch.unread[0].reason}")
            key = ids_of(without_missing(plain(batch.table[on]), schema.missing), on)
            if key.bad_N.any():
                raise DataError(f"{url}, row {batch.row_N[key.bad_N.argmax()]}: {key.reason}")
            columns = {name: plain(batch.table[name]) for name in names}
            yield pa.table(columns | {on: key.values}).filter(pc.is_valid(key.values))


def _files(url: str, on: str, schema: LogSchema) -> FilesConfig:
    """How to read a side table: as the log, except where its header shows that it is plain CSV."""
    as_log = schema.files.model_copy(update={"columns": None})  # those are the log's
    plain_csv = as_log.model_copy(update={"separator": "auto"})
    with open_table(url, as_log) as first, open_table(url, plain_csv) as second:
        return plain_csv if on in second.columns and on not in first.columns else as_log


def _alike(tables: list[pa.Table]) -> pa.Table:
    """All rows; a column of different types as text, so that no number goes through a float."""
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    columns = {}
    for name in names:
        parts = [table[name] if name in table.column_names else None for table in tables]
        kinds = {part.type for part in parts if part is not None and not pa.types.is_null(part.type)}
        kind = kinds.pop() if len(kinds) == 1 else pa.string()
        columns[name] = pa.chunked_array(
            [_part(part, kind, table.num_rows) for part, table in zip(parts, tables, strict=True)], kind
        )
    return pa.table(columns)


def _part(part: pa.ChunkedArray | None, kind: pa.DataType, rows: int) -> pa.Array:
    if part is None:
        return pa.nulls(rows, kind)
    array = plain(part)
    return array if array.type == kind else ids_of(array, "").values.cast(kind)


def with_sides(table: pa.Table, sides: list[Joined], schema: LogSchema) -> pa.Table:
    """The rows with the columns of the side tables that they do not have themselves."""
    for on, side in sides:
        keys = ids_of(without_missing(plain(table[on]), schema.missing), on).values
        row_N = pc.index_in(keys, value_set=side[on].combine_chunks(), skip_nulls=True)
        for name in side.column_names:
            if name not in table.column_names:
                table = table.append_column(name, side[name].take(row_N))
    return table

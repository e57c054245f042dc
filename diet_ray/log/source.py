"""Raw log files as a list of pieces, each streamed on its own."""

import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pc
import pyarrow.parquet as pq

from diet_ray.errors import DataError
from diet_ray.log.schema import LogSchema
from diet_ray.storage import Folder

BATCH_ROWS = 1_000_000
CSV_BLOCK_BYTES = 64 << 20
DAMAGED = (pa.ArrowException, OSError, EOFError, zlib.error)


class Chunk(NamedTuple):
    """Rows of one file (or partition of a topic), each with its number there, from 1."""

    path: str
    row: pa.Array
    table: pa.Table


def source_files(source: str, patterns: tuple[str, ...]) -> list[str]:
    """Files below `source` (or the one file it is) in order of name; DataError where there is none."""
    folder = Folder.at(source)
    if folder.fs.isfile(folder.root):
        return [source]
    matching = matching_files(folder, patterns)
    if not matching:
        raise DataError(f"no file at {source} matches {', '.join(patterns)}")
    return [folder.fs.unstrip_protocol(path) for path in matching]


def matching_files(folder: Folder, patterns: tuple[str, ...]) -> list[str]:
    """Paths below a folder in order of name, hidden and unfinished files left out."""
    found = sorted(folder.fs.find(folder.root)) if folder.fs.exists(folder.root) else []
    named = [(path, path.rsplit("/", 1)[-1]) for path in found]
    return [p for p, name in named if name[0] not in "._" and any(fnmatch(name, x) for x in patterns)]


def source_sizes(source: str, paths: list[str]) -> dict[str, int]:
    """Bytes of each source file, by its name below `source`."""
    folder = Folder.at(source)
    plain = [str(folder.fs._strip_protocol(path)) for path in paths]
    names = [path.removeprefix(folder.root).lstrip("/") or path.rsplit("/", 1)[-1] for path in plain]
    return {name: folder.fs.size(path) for name, path in zip(names, plain, strict=True)}


def chunks(path: str, schema: LogSchema, source: str) -> Iterator[Chunk]:
    """Stream one file with the columns of the schema, side tables joined.

    Raises DataError naming the file where a column is missing or the file is damaged.
    """
    sides = {side.on: _side_table(source, side.files, side.on) for side in schema.join}
    joined = {name for side in sides.values() for name in side.column_names}
    own = [name for name in schema.columns() if name not in joined or name in sides]
    first_row = 0
    try:
        for table in _tables(path, schema, own):
            missing = [name for name in own if name not in table.column_names]
            if missing:
                listed = ", ".join(table.column_names)
                raise DataError(f"{path} has no column {', '.join(missing)}; it has {listed}")
            row = pa.array(np.arange(first_row + 1, first_row + 1 + table.num_rows))
            yield Chunk(path, row, _with_sides(table.select(own), sides))
            first_row += table.num_rows
    except DAMAGED as broken:
        raise DataError(f"{path} cannot be read after row {first_row}: {broken}") from broken


def _tables(path: str, schema: LogSchema, columns: list[str]) -> Iterator[pa.Table]:
    folder = Folder.at(path)
    if path.endswith(".parquet"):
        with folder.fs.open(folder.root, "rb") as file:
            parquet = pq.ParquetFile(file)
            known = [name for name in columns if name in parquet.schema_arrow.names]
            if len(known) < len(columns):
                yield parquet.schema_arrow.empty_table()
            for batch in parquet.iter_batches(BATCH_ROWS, columns=known):
                yield pa.Table.from_batches([batch])
        return
    with folder.fs.open(folder.root, "rb", compression="infer") as file:
        yield from map(lambda batch: pa.Table.from_batches([batch]), _csv(file, path, schema))


def _csv(file: object, path: str, schema: LogSchema) -> pc.CSVStreamingReader:
    separator = schema.files.separator or ("\t" if ".tsv" in path else ",")
    text = dict.fromkeys(schema.text_columns(), pa.string())
    names = schema.files.columns
    return pc.open_csv(
        file,
        # With threads a line that cannot be parsed is reported without its number.
        pc.ReadOptions(
            use_threads=False, block_size=CSV_BLOCK_BYTES, column_names=list(names) if names else None
        ),
        pc.ParseOptions(delimiter=separator),
        pc.ConvertOptions(column_types=text, strings_can_be_null=True),
    )


def _side_table(source: str, pattern: str, on: str) -> pa.Table:
    """A side table as text columns, one row per key; held whole by each process that reads the log."""
    paths = source_files(source, (pattern,))
    folders = [Folder.at(path) for path in paths]
    # The version keeps a table that was corrected from being answered out of the cache.
    return _read_side_table(
        tuple((path, f.fs.ukey(f.root)) for path, f in zip(paths, folders, strict=True)), on
    )


@lru_cache(maxsize=4)
def _read_side_table(versions: tuple[tuple[str, str], ...], on: str) -> pa.Table:
    # Keys and missing text as in the log: 007 is not 7, and an empty tag is no tag.
    convert, parts = pc.ConvertOptions(column_types={on: pa.string()}, strings_can_be_null=True), []
    for path, _ in versions:
        folder = Folder.at(path)
        try:
            with folder.fs.open(folder.root, "rb", compression="infer") as file:
                table = pc.read_csv(file, convert_options=convert)
        except DAMAGED as broken:
            raise DataError(f"{path} cannot be read: {broken}") from broken
        if on not in table.column_names:
            raise DataError(f"{path} has no column {on} to join by")
        parts.append(pa.table({name: table[name].cast(pa.string()) for name in table.column_names}))
    side = pa.concat_tables(parts, promote_options="default")
    keys = side[on].to_pandas()
    return side.filter(pa.array(~keys.duplicated().to_numpy()))


def _with_sides(table: pa.Table, sides: dict[str, pa.Table]) -> pa.Table:
    for on, side in sides.items():
        known = side[on].combine_chunks()
        row_N = pa.compute.index_in(table[on].cast(pa.string()), value_set=known, skip_nulls=True)
        for name in side.column_names:
            if name not in table.column_names:
                table = table.append_column(name, side[name].take(row_N))
    return table

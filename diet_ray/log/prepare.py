"""Raw log to encoded blocks in two passes, each over pieces that may run anywhere.

Pass 1 cuts every source file into slices of time (staging); pass 2 puts the rows of a slice in order of time
and encodes them with the vocabulary as it stood at their block. Between them the vocabulary grows block by
block, so no id is known before its time. What is written last is the manifest.
"""

import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.dataset import FORMAT, MANIFEST, Block, PreparedLog, check_time_order, plain_block
from diet_ray.log.encoding import EncodedPart, block_of, write_part
from diet_ray.log.files import log_files, source_sizes
from diet_ray.log.normalise import normalise
from diet_ray.log.schema import HashedConfig, LogSchema, parse_schema
from diet_ray.log.source import chunks
from diet_ray.log.vocabulary import Encoder, HashedEncoder, Vocabulary, counted, merged_counts
from diet_ray.storage import Folder

# Apart from the manifest: the prepared log is the same however its rows are cut into files.
SOURCES = "sources.json"
GROWS_WITHOUT = ("validation", "test")  # blocks whose ids nobody learns
# A block is cut into this many slices, equal in time, and each is held whole while it is sorted: where blocks
# have billions of rows, this is the number to raise.
SLICES = 16


class SourcePiece(NamedTuple):
    """Pass 1's unit of work; small and picklable."""

    number: int
    path: str
    source: str
    out: str
    schema: dict[str, Any]


class Staged(NamedTuple):
    """Rows of one slice of a block from one chunk of a source file."""

    block: str
    slice: int
    path: str
    rows: int


class StagedPiece(NamedTuple):
    parts: list[Staged]
    outside: int  # rows that belong to no block
    quarantined: int


class EncodePiece(NamedTuple):
    """Pass 2's unit of work: a slice, in the order of the sources."""

    block: str
    paths: tuple[str, ...]
    part: int
    out: str
    schema: dict[str, Any]
    attempt: str  # its own in each preparation: a process may outlive one and serve the next


# Runs a function over items, in order: in this process, or over a cluster (actors.data).
Mapper = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]


def in_process(function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
    return [function(item) for item in items]


def prepare(schema: LogSchema, source: str, out: str, mapper: Mapper = in_process) -> PreparedLog:
    """Write the encoded blocks of `source` to `out` and return them; done work of the same schema is kept.

    Raises DataError where a block is empty, a file damaged, a row malformed, or `out` holds another log.
    """
    folder, plain = Folder.at(out), schema.plain()
    if folder.exists(MANIFEST):
        prepared = PreparedLog.open(out)
        _check_same_log(folder, schema, source)
        return prepared
    for left_over in ("staging", "blocks", "vocabulary", "quarantine"):
        if folder.exists(left_over):
            folder.fs.rm(folder / left_over, recursive=True)
    paths = log_files(source, schema)
    pieces = [SourcePiece(i, path, source, out, plain) for i, path in enumerate(paths)]
    staged: list[StagedPiece] = mapper(stage_piece, pieces, "reading")
    parts = [part for piece in staged for part in piece.parts]
    _check_no_block_is_empty(schema, parts)
    table_rows = _grow(schema, folder, parts)
    attempt = uuid.uuid4().hex
    numbered = [
        EncodePiece(name, paths, number, out, plain, attempt)
        for name in schema.intervals()
        for number, paths in enumerate(_slices([part for part in parts if part.block == name]))
    ]
    encoded: list[EncodedPart] = mapper(encode_piece, numbered, "encoding")
    blocks = [
        block_of(name, [part for part in encoded if part.block == name], table_rows[name])
        for name in schema.intervals()
    ]
    check_time_order(blocks)
    counts = {"outside": sum(p.outside for p in staged), "quarantined": sum(p.quarantined for p in staged)}
    folder.write_json(SOURCES, source_sizes(source, paths))
    folder.write_json(MANIFEST, _manifest(schema, blocks, counts))
    folder.fs.rm(folder / "staging", recursive=True)
    return PreparedLog.open(out)


def _check_same_log(folder: Folder, schema: LogSchema, source: str) -> None:
    """DataError where what is prepared there is of another schema or other files than `source` holds.

    A source that is gone is no fault: the prepared log does not need it any more.
    """
    if parse_schema(folder.read_json(MANIFEST)["schema"], "prepared") != schema:
        raise DataError(f"{folder.root} holds a log prepared with another schema; choose another directory")
    raw = Folder.at(source)
    if not raw.fs.exists(raw.root):
        return
    now, then = source_sizes(source, log_files(source, schema)), folder.read_json(SOURCES)
    changed = sorted({name for name, _ in now.items() ^ then.items()})
    if changed:
        raise DataError(
            f"{folder.root} was prepared from other files than {source} holds now ({changed[0]} and "
            f"{len(changed) - 1} more differ); choose another directory"
        )


def stage_piece(piece: SourcePiece) -> StagedPiece:
    """Cut one source file into slices of blocks under out/staging, rows as normalised."""
    schema, folder = parse_schema(piece.schema, "prepared"), Folder.at(piece.out)
    parts: list[Staged] = []
    outside = quarantined = 0
    for number, chunk in enumerate(chunks(piece.path, schema, piece.source)):
        rows, _, rejected, _ = normalise(chunk, schema)
        name = f"{piece.number:05d}-{number:05d}.parquet"
        if rejected.num_rows:
            quarantined += rejected.num_rows
            folder.write_parquet(f"quarantine/{name}", rejected)
        outside += rows.num_rows
        ts_N = rows["ts"].to_numpy()
        for block, (start, end) in schema.intervals().items():
            slice_N = np.where((ts_N >= start) & (ts_N < end), (ts_N - start) * SLICES // (end - start), -1)
            for place in np.unique(slice_N[slice_N >= 0]).tolist():
                inside = rows.filter(pa.array(slice_N == place))
                outside -= inside.num_rows
                path = f"staging/{block}/{place:02d}/{name}"
                folder.write_parquet(path, inside)
                parts.append(Staged(block, place, path, inside.num_rows))
    return StagedPiece(parts, outside, quarantined)


def encode_piece(piece: EncodePiece) -> EncodedPart:
    """Encode one slice into a file below out/blocks, rows in order of time."""
    schema, folder = parse_schema(piece.schema, "prepared"), Folder.at(piece.out)
    rows = pa.concat_tables([folder.read_parquet(path) for path in piece.paths])

    def encoder(field: str) -> Encoder:
        return _encoder(piece.out, schema, field, piece.block, piece.attempt)

    return write_part(folder, rows, schema, piece.block, piece.part, encoder)


def _slices(parts: list[Staged]) -> list[tuple[str, ...]]:
    """Staged files of a block, slice by slice in order of time, empty slices left out."""
    numbers = sorted({part.slice for part in parts})
    return [tuple(part.path for part in parts if part.slice == number) for number in numbers]


def _grow(schema: LogSchema, folder: Folder, parts: list[Staged]) -> dict[str, tuple[int, ...]]:
    """Grow the vocabularies block by block; return table rows per field once each block is known."""
    if isinstance(schema.encoder, HashedConfig):
        return dict.fromkeys(schema.intervals(), (schema.encoder.buckets + 1,) * len(schema.fields))
    known = {field: Vocabulary() for field in schema.field_names}
    rows: dict[str, tuple[int, ...]] = {}
    for block in schema.intervals():
        if block not in GROWS_WITHOUT:
            for field, vocabulary in known.items():
                counts = _counts(folder, [p.path for p in parts if p.block == block], field)
                increment = vocabulary.grow(counts, schema.encoder.min_count)
                folder.write_parquet(f"vocabulary/{block}/{field}.parquet", increment)
        rows[block] = tuple(vocabulary.rows for vocabulary in known.values())
    return rows


def _counts(folder: Folder, paths: list[str], field: str) -> pa.Table:
    """How often each id occurs; one file's column at a time, so the distinct ids bound the memory held."""
    return merged_counts(counted(folder.read_parquet(path, [field])[field]) for path in paths)


@lru_cache(maxsize=64)
def _encoder(out: str, schema: LogSchema, field: str, block: str, attempt: str) -> Encoder:
    if isinstance(schema.encoder, HashedConfig):
        return HashedEncoder(schema.encoder.buckets)
    vocabulary, folder = Vocabulary(), Folder.at(out)
    for name in schema.intervals():
        if name not in GROWS_WITHOUT:
            vocabulary.extend(folder.read_parquet(f"vocabulary/{name}/{field}.parquet"))
        if name == block:
            break
    return vocabulary


def _check_no_block_is_empty(schema: LogSchema, parts: list[Staged]) -> None:
    filled = {part.block for part in parts}
    for name, (start, end) in schema.intervals().items():
        if name not in filled:
            span = " to ".join(str(np.datetime64(ms, "ms")) for ms in (start, end))
            raise DataError(f"block {name} is empty: no row of the log lies in {span} UTC")


def _manifest(schema: LogSchema, blocks: list[Block], counts: dict[str, int]) -> dict[str, Any]:
    plain = [plain_block(block) for block in blocks]
    names = {"name": schema.name, "fields": schema.field_names, "tasks": schema.task_names}
    return {"format": FORMAT, **names, "schema": schema.plain(), "blocks": plain, **counts}

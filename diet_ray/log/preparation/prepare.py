"""Raw log to encoded blocks in passes over pieces that may run anywhere.

Staging reads every source file, cuts its rows into slices of time and counts their ids. Growth adds the ids
of each block to the vocabulary, in the order of the blocks, so that no id is known before its time. Encoding
puts the rows of a slice in order of time and encodes them with the vocabulary as it was at their block. The
manifest is written last: where it is, the log is complete.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from diet_ray import layout
from diet_ray.errors import DataError
from diet_ray.lease import Lease
from diet_ray.log.dataset import FORMAT, MANIFEST, Block, PreparedLog, check_time_order, plain_block
from diet_ray.log.encoding import EncodedPart, block_of, write_part
from diet_ray.log.normalise import normalise
from diet_ray.log.preparation.growth import (
    CountFile,
    CountWriter,
    GrowPiece,
    SliceVocabulary,
    distinct_ids,
    grow,
)
from diet_ray.log.preparation.origin import (
    SOURCES,
    check_same_log,
    digest,
    plain_record,
    raw_files,
    side_files,
)
from diet_ray.log.preparation.slices import (
    Mapper,
    Slice,
    Staged,
    base_slice,
    block_numbers,
    cut_slices,
    groups_of,
    partitioned,
    read_staged,
    write_staged,
)
from diet_ray.log.schema import HashedConfig, LogSchema, parse_schema
from diet_ray.log.side_tables import keep_side_tables
from diet_ray.log.source import chunks
from diet_ray.log.vocabulary import Encoder, HashedEncoder
from diet_ray.storage import FileStamp, Folder

WITHOUT_GROWTH = ("validation", "test")  # blocks whose ids are not learned

logger = logging.getLogger(__name__)


class SourcePiece(NamedTuple):
    """A unit of staging; small and picklable."""

    number: int
    path: str
    source: str
    out: str
    schema: dict[str, Any]


class StagedPiece(NamedTuple):
    """What one source file became."""

    stamp: FileStamp
    parts: list[Staged]
    counts: list[CountFile]
    outside: int  # rows that belong to no block
    quarantined: Counter[str]  # reason -> rows
    notes: Counter[str]  # what was read with a doubt (log.normalise) -> how often


class EncodePiece(NamedTuple):
    """A unit of encoding: neighbouring slices of a block that share one look at the vocabulary."""

    slices: tuple[Slice, ...]
    first: int  # number of the first one's part
    out: str
    schema: dict[str, Any]


class EncodedSlice(NamedTuple):
    part: EncodedPart
    missing: tuple[int, ...]  # rows without an id, by field


def in_process(function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
    """A Mapper that runs here, item by item."""
    return [function(item) for item in items]


def prepare(schema: LogSchema, source: str, out: str, mapper: Mapper = in_process) -> PreparedLog:
    """Encode a raw log into the blocks of its schema; `diet-ray prepare` does it over a cluster.

    A log that was prepared there from the same files with the same schema is returned as it is.

    Args:
        schema: of the log (load_schema).
        source: file or directory of the raw log, local or any fsspec URL.
        out: directory of the prepared log.
        mapper: runs the pieces of the work; in this process by default.

    Returns:
        The prepared log.

    Raises:
        DataError: where a block is empty, a file damaged, a row malformed, or `out` holds another log.
        RunError: where another process is preparing a log in `out`.

    Example:
        >>> import diet_ray
        >>> log = diet_ray.prepare(diet_ray.load_schema("clicks.yaml"), "clicks.csv", "data/clicks")
        >>> [block.rows for block in log.blocks.values()]
        [3, 1, 1, 1]
    """
    folder = Folder.at(out)
    if not folder.exists(MANIFEST):
        paths = raw_files(schema, source, out)
        with Lease(folder) as lease:
            if not folder.exists(MANIFEST):  # nor did another process write it just before
                return _prepared(schema, source, out, paths, mapper, lease)
    prepared = PreparedLog.open(out)
    check_same_log(folder, schema, source)
    return prepared


def _prepared(
    schema: LogSchema, source: str, out: str, paths: list[str], mapper: Mapper, lease: Lease
) -> PreparedLog:
    folder = Folder.at(out)
    for leftover in ("staging", "blocks", "vocabulary", "quarantine", "side"):
        if folder.exists(leftover):
            folder.fs.rm(folder / leftover, recursive=True)
    staged = _stage(schema, source, out, paths, mapper)
    parts = [part for piece in staged for part in piece.parts]
    _check_no_block_is_empty(schema, parts)
    table_rows = _grow(schema, out, staged, mapper)
    slices = cut_slices(out, parts, schema.intervals(), mapper)
    encoded = _encode(schema, out, slices, mapper)
    blocks = [
        block_of(name, [each.part for each in of_block], table_rows[name])
        for name, of_block in encoded.items()
    ]
    check_time_order(blocks)
    keep_side_tables(folder, source, schema)
    sides = side_files(schema, source)
    stamps = [piece.stamp for piece in staged] + [digest(path) for path in sides]
    lease.check()
    folder.write_json(SOURCES, plain_record(source, [*paths, *sides], stamps))
    folder.write_json(MANIFEST, _manifest(schema, blocks, staged, encoded))
    folder.fs.rm(folder / "staging", recursive=True)
    return PreparedLog.open(out)


def _stage(schema: LogSchema, source: str, out: str, paths: list[str], mapper: Mapper) -> list[StagedPiece]:
    plain = schema.plain()
    logger.info("staging %d files of %s", len(paths), source)
    return mapper(
        stage, [SourcePiece(i, path, source, out, plain) for i, path in enumerate(paths)], "reading"
    )


def stage(piece: SourcePiece) -> StagedPiece:
    """Cut the rows of one source file into slices of blocks below out/staging, and count their ids."""
    schema, folder = parse_schema(piece.schema, "prepared"), Folder.at(piece.out)
    names, intervals = zip(*schema.intervals().items(), strict=True)
    hashed = isinstance(schema.encoder, HashedConfig)
    counts = CountWriter(folder, () if hashed else schema.field_names, piece.number)
    parts: list[Staged] = []
    outside, quarantined, notes, stamp = 0, Counter[str](), Counter[str](), digest(piece.path)
    for number, chunk in enumerate(chunks(piece.path, schema, piece.source)):
        rows, _, rejected, noted = normalise(chunk, schema, as_codes=True)
        notes += noted
        name = f"{piece.number:05d}-{number:05d}.parquet"
        if rejected.num_rows:
            quarantined.update(rejected["reason"].to_pylist())
            folder.write_parquet(layout.quarantined_chunk(name), rejected)
        block_N = block_numbers(rows["ts"].to_numpy(), intervals)
        for number_of_block, inside in partitioned(rows, block_N):
            if number_of_block < 0:
                outside += inside.num_rows
                continue
            block, (start, end) = names[number_of_block], intervals[number_of_block]
            if block not in WITHOUT_GROWTH:
                counts.add(block, inside)
            for place, part in partitioned(inside, base_slice(inside["ts"].to_numpy(), start, end)):
                path = f"staging/{block}/{place:02d}/{name}"
                write_staged(folder, path, part)
                parts.append(Staged(block, place, path, part.num_rows))
    counts.flush()
    return StagedPiece(stamp, parts, counts.files, outside, quarantined, notes)


def _grow(
    schema: LogSchema, out: str, staged: list[StagedPiece], mapper: Mapper
) -> dict[str, tuple[int, ...]]:
    """Grow the vocabulary of each field; return table rows per field once each block is known."""
    if isinstance(schema.encoder, HashedConfig):
        return dict.fromkeys(schema.intervals(), (schema.encoder.buckets + 1,) * len(schema.fields))
    learned = [block for block in schema.intervals() if block not in WITHOUT_GROWTH]
    counts: dict[tuple[str, str], list[str]] = {}
    for file in (file for piece in staged for file in piece.counts):
        counts.setdefault((file.block, file.field), []).append(file.path)
    items = [
        GrowPiece(
            out, field, {block: tuple(counts[block, field]) for block in learned}, schema.encoder.min_count
        )
        for field in schema.field_names
    ]
    grown: list[dict[str, int]] = mapper(grow, items, "growing vocabularies")
    last = learned[-1]
    return {
        block: tuple(rows[block if block in learned else last] for rows in grown)
        for block in schema.intervals()
    }


def _encode(
    schema: LogSchema, out: str, slices: dict[str, list[Slice]], mapper: Mapper
) -> dict[str, list[EncodedSlice]]:
    """Encode every slice; the results of each block, in order of time."""
    plain = schema.plain()
    items: list[EncodePiece] = []
    for of_block in slices.values():
        first = 0
        for group in groups_of(of_block):
            items.append(EncodePiece(tuple(group), first, out, plain))
            first += len(group)
    encoded = chain.from_iterable(mapper(encode, items, "encoding"))
    return {name: list(group) for name, group in groupby(encoded, key=lambda each: each.part.block)}


def encode(piece: EncodePiece) -> list[EncodedSlice]:
    """Encode each slice into a file below out/blocks, rows in order of time."""
    schema, folder = parse_schema(piece.schema, "prepared"), Folder.at(piece.out)
    tables = [read_staged(folder, each.paths) for each in piece.slices]
    block = piece.slices[0].block
    encoders = {field: _encoder(folder, schema, field, block, tables) for field in schema.field_names}
    return [
        EncodedSlice(
            write_part(folder, rows, schema, block, part, encoders.__getitem__),
            tuple(rows[field].null_count for field in schema.field_names),
        )
        for part, rows in enumerate(tables, start=piece.first)
    ]


def _encoder(folder: Folder, schema: LogSchema, field: str, block: str, tables: list[pa.Table]) -> Encoder:
    if isinstance(schema.encoder, HashedConfig):
        return HashedEncoder(schema.encoder.buckets)
    known = [name for name in schema.intervals() if name not in WITHOUT_GROWTH]
    known = known[: known.index(block) + 1] if block in known else known
    return SliceVocabulary(folder, field, known, [distinct_ids(table[field]) for table in tables])


def _check_no_block_is_empty(schema: LogSchema, parts: list[Staged]) -> None:
    filled = {part.block for part in parts}
    for name, (start, end) in schema.intervals().items():
        if name not in filled:
            span = " to ".join(str(np.datetime64(ms, "ms")) for ms in (start, end))
            raise DataError(f"block {name} is empty: no row of the log lies in {span} UTC")


def _manifest(
    schema: LogSchema,
    blocks: list[Block],
    staged: list[StagedPiece],
    encoded: dict[str, list[EncodedSlice]],
) -> dict[str, Any]:
    reasons = sum((piece.quarantined for piece in staged), Counter[str]())
    notes = sum((piece.notes for piece in staged), Counter[str]())
    missing = {
        name: [sum(counts) for counts in zip(*(each.missing for each in of_block), strict=True)]
        for name, of_block in encoded.items()
    }
    return {
        "format": FORMAT,
        "name": schema.name,
        "fields": schema.field_names,
        "tasks": schema.task_names,
        "schema": schema.plain(),
        "blocks": [plain_block(block) for block in blocks],
        "outside": sum(piece.outside for piece in staged),
        "quarantined": reasons.total(),
        "quarantined_by_reason": dict(sorted(reasons.items())),
        "notes": dict(sorted(notes.items())),
        "missing": missing,
    }

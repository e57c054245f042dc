"""A block's staged rows cut into slices of time that fit into memory, each encoded on its own.

A block is staged in BASE_SLICES slices equal in time. One with more than SLICE_ROWS rows is cut further, by
histograms of its times, and where a single millisecond has more rows than that, by the rows' positions. The
cuts depend on the rows and their order alone, not on the files that the rows came in.

Shape suffixes: N rows, B bins.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from diet_ray.storage import Folder

BASE_SLICES = 16
SLICE_ROWS = 1_000_000  # of the largest slice; a process holds one whole while it encodes it
BINS = 1024  # of a histogram of times

# Runs a function over items, in order: in this process, or over a cluster (actors.data).
Mapper = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]
Interval = tuple[int, int]  # ms since 1970 UTC, start inclusive, end exclusive


class Staged(NamedTuple):
    """A file with rows of one base slice of a block, as they came."""

    block: str
    slice: int  # number of the base slice
    path: str
    rows: int


class Slice(NamedTuple):
    """Files with the rows of one slice of a block, in the order of the sources."""

    block: str
    paths: tuple[str, ...]
    rows: int


class Span(NamedTuple):
    """A part of a base slice: an interval of time, cut by position into `shares` where it is one moment."""

    block: str
    slice: int
    start: int
    end: int
    rows: int

    @property
    def shares(self) -> int:
        return max(1, -(-self.rows // SLICE_ROWS))


class HistogramPiece(NamedTuple):
    """A unit of work: counts the rows of a span in some of its files by time."""

    out: str
    span: Span
    paths: tuple[str, ...]


class SplitPiece(NamedTuple):
    """A unit of work: writes the rows of some files of a base slice into one file per span and share."""

    out: str
    spans: tuple[Span, ...]
    paths: tuple[str, ...]
    first: int  # position of their first row within the base slice
    number: int


def block_numbers(ts_N: NDArray[np.int64], intervals: Sequence[Interval]) -> NDArray[np.int64]:
    """Number of the block of each time, blocks in order of time; -1 outside of every block; [N]."""
    start_B, end_B = np.array(intervals).T
    block_N = np.searchsorted(start_B, ts_N, side="right") - 1
    return np.where((block_N >= 0) & (ts_N < end_B[block_N]), block_N, -1)


def base_slice(ts_N: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    """Number of the base slice of each time within a block; [N]."""
    return (ts_N - start) * BASE_SLICES // (end - start)


def cut_slices(
    out: str, staged: list[Staged], intervals: dict[str, Interval], mapper: Mapper
) -> dict[str, list[Slice]]:
    """The slices of each block in order of time, none with more than SLICE_ROWS rows."""
    parts: defaultdict[tuple[str, int], list[Staged]] = defaultdict(list)
    for part in staged:
        parts[part.block, part.slice].append(part)
    rows = {key: sum(part.rows for part in group) for key, group in parts.items()}
    large = [key for key in sorted(parts) if rows[key] > SLICE_ROWS]
    spans = _spans(out, [_whole(*key, rows[key], intervals) for key in large], parts, mapper)
    split = _split(out, spans, parts, mapper)
    slices: dict[str, list[Slice]] = {block: [] for block in intervals}
    for block, number in sorted(parts, key=lambda key: key[1]):
        whole = Slice(block, tuple(part.path for part in parts[block, number]), rows[block, number])
        slices[block] += split.get((block, number), [whole])
    return slices


def _whole(block: str, number: int, rows: int, intervals: dict[str, Interval]) -> Span:
    """A base slice as a span: the times t with number = (t - start) * BASE_SLICES // (end - start)."""
    start, end = intervals[block]
    first, last = (start - (-(n * (end - start)) // BASE_SLICES) for n in (number, number + 1))
    return Span(block, number, first, last, rows)


def _spans(
    out: str, pending: list[Span], parts: dict[tuple[str, int], list[Staged]], mapper: Mapper
) -> list[Span]:
    """Cut spans in time until each has at most SLICE_ROWS rows or is one millisecond."""
    fine: list[Span] = []
    while pending:
        items = [
            HistogramPiece(out, span, tuple(part.path for part in group))
            for span in pending
            for group in groups_of(parts[span.block, span.slice])
        ]
        counted = mapper(histogram, items, "counting times")
        by_span = groupby(zip(items, counted, strict=True), key=lambda pair: pair[0].span)
        smaller = [
            part for span, pairs in by_span for part in _cut(span, np.sum([c for _, c in pairs], axis=0))
        ]
        fine += [span for span in smaller if _fits(span)]
        pending = [span for span in smaller if not _fits(span)]
    return fine


def _fits(span: Span) -> bool:
    return span.rows <= SLICE_ROWS or span.end - span.start == 1


def histogram(piece: HistogramPiece) -> NDArray[np.int64]:
    """Rows of the span by time in BINS equal bins; [B]."""
    folder, span = Folder.at(piece.out), piece.span
    count_B = np.zeros(BINS, np.int64)
    for path in piece.paths:
        ts_N = folder.read_parquet(path, ["ts"])["ts"].to_numpy()
        ts_N = ts_N[(ts_N >= span.start) & (ts_N < span.end)]
        bin_N = (ts_N - span.start) * BINS // (span.end - span.start)
        count_B += np.bincount(bin_N, minlength=BINS)
    return count_B


def _cut(span: Span, count_B: NDArray[np.int64]) -> list[Span]:
    """Join neighbouring bins to spans of at most SLICE_ROWS rows; no span begins or ends in an empty bin."""
    width = span.end - span.start
    cuts: list[Span] = []
    for b in np.flatnonzero(count_B).tolist():
        start, end = (span.start - (-(edge * width) // BINS) for edge in (b, b + 1))
        if cuts and cuts[-1].rows + count_B[b] <= SLICE_ROWS:
            cuts[-1] = cuts[-1]._replace(end=end, rows=cuts[-1].rows + int(count_B[b]))
        else:
            cuts.append(span._replace(start=start, end=end, rows=int(count_B[b])))
    return cuts


def _split(
    out: str, spans: list[Span], parts: dict[tuple[str, int], list[Staged]], mapper: Mapper
) -> dict[tuple[str, int], list[Slice]]:
    """Write the base slices that were cut anew, one file per span, share and group of files."""
    items: list[SplitPiece] = []
    for key, group in groupby(sorted(spans), key=lambda span: (span.block, span.slice)):
        own, first = tuple(group), 0
        for number, files in enumerate(groups_of(parts[key])):
            items.append(SplitPiece(out, own, tuple(part.path for part in files), first, number))
            first += sum(part.rows for part in files)
    written: defaultdict[tuple[Span, int], list[tuple[str, int]]] = defaultdict(list)
    for piece, files_of_piece in zip(items, mapper(split, items, "cutting slices"), strict=True):
        for (number, share), file in files_of_piece.items():
            written[piece.spans[number], share].append(file)
    slices: defaultdict[tuple[str, int], list[Slice]] = defaultdict(list)
    for (span, _), files_of_share in sorted(written.items()):
        paths, rows = zip(*files_of_share, strict=True)
        slices[span.block, span.slice].append(Slice(span.block, paths, sum(rows)))
    return slices


def split(piece: SplitPiece) -> dict[tuple[int, int], tuple[str, int]]:
    """Write the rows of the piece; returns file and rows of each (number of the span, share) that has any."""
    folder = Folder.at(piece.out)
    rows = read_staged(folder, piece.paths)
    ts_N = rows["ts"].to_numpy()
    span_N = np.searchsorted([span.start for span in piece.spans], ts_N, side="right") - 1
    # Rows of one moment come in random order anyway (log.encoding): any share of them is a random one.
    position_N = np.arange(piece.first, piece.first + len(ts_N), dtype=np.uint64)
    share_S = np.array([span.shares for span in piece.spans], np.uint64)
    share_N = (pd.util.hash_array(position_N) % share_S[span_N]).astype(np.int64)
    most, files = int(share_S.max()), {}
    for key, inside in partitioned(rows, span_N * most + share_N):
        (number, share), span = divmod(key, most), piece.spans[key // most]
        place = f"staging/{span.block}/{span.slice:02d}/{number:04d}-{share:04d}"
        path = f"{place}/{piece.number:05d}.parquet"
        write_staged(folder, path, inside)
        files[number, share] = path, inside.num_rows
    return files


def write_staged(folder: Folder, path: str, rows: pa.Table) -> None:
    """Write rows whose ids are dictionaries; those much larger than the rows are cut down to them."""
    columns = [_compact(column.combine_chunks()) for column in rows.itercolumns()]
    folder.write_parquet(path, pa.table(columns, rows.column_names), transient=True)


def _compact(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type) and len(column.dictionary) > len(column):
        return column.dictionary_decode().dictionary_encode()
    return column


def read_staged(folder: Folder, paths: Sequence[str]) -> pa.Table:
    """The rows of staged files in their order, each column in one piece."""
    tables = [folder.read_parquet(path) for path in paths]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def partitioned(rows: pa.Table, key_N: NDArray[np.int64]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each key, in the order in which they come; keys rising."""
    if not np.all(key_N[1:] >= key_N[:-1]):
        order = np.argsort(key_N, kind="stable")
        rows, key_N = rows.take(pa.array(order)), key_N[order]
    keys, first = np.unique(key_N, return_index=True)
    for key, start, stop in zip(keys.tolist(), first, np.append(first, len(key_N))[1:], strict=True):
        yield key, rows.slice(start, stop - start)


Sized = TypeVar("Sized", Staged, Slice)


def groups_of(parts: list[Sized]) -> list[list[Sized]]:
    """Consecutive files or slices with at most SLICE_ROWS rows together, where a single one has not more."""
    groups: list[list[Sized]] = []
    rows = 0
    for part in parts:
        if not groups or rows + part.rows > SLICE_ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(part)
        rows += part.rows
    return groups

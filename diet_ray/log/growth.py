"""The vocabulary of a prepared log, grown and looked up on disk: no process holds a whole one.

A block's increment (columns id, row) is a file per field; what one process holds is the distinct ids of one
field in one block, or those of one slice. Shape suffixes: N rows.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diet_ray.errors import DataError
from diet_ray.log.counting import counted, merged_counts
from diet_ray.storage import Folder

MERGE_ROWS = 1 << 21  # counts that wait before they are merged
LOOKUP_ROWS = 1 << 20  # ids of an increment that are read at once


class Counted(NamedTuple):
    """A file of counts (columns id, count) of one field in one block."""

    block: str
    field: str
    path: str


class GrowPiece(NamedTuple):
    """A unit of work: one field through all blocks that add ids."""

    out: str
    field: str
    blocks: dict[str, tuple[str, ...]]  # block -> its files of counts, in order of time
    min_count: int


class CountWriter:
    """Counts the ids of rows by block and field, and writes them before they are many."""

    def __init__(self, folder: Folder, fields: tuple[str, ...], number: int) -> None:
        """number: of the source file, to name the files by."""
        self.folder, self.fields, self.number = folder, fields, number
        self.waiting: dict[tuple[str, str], CountMerger] = {}
        self.written: list[Counted] = []

    def add(self, block: str, rows: pa.Table) -> None:
        for field in self.fields:
            merger = self.waiting.setdefault((block, field), CountMerger())
            merger.add(counted(rows[field]))
        if sum(merger.rows for merger in self.waiting.values()) > MERGE_ROWS * len(self.fields):
            self.flush()

    def flush(self) -> None:
        for (block, field), merger in self.waiting.items():
            path = f"staging/counts/{block}/{field}/{self.number:05d}-{len(self.written):06d}.parquet"
            self.folder.write_parquet(path, merger.total())
            self.written.append(Counted(block, field, path))
        self.waiting = {}


class CountMerger:
    """Adds counts up, holding at most about twice the distinct ids: the time is linear in the ids added."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.merged = 0  # ids after the last merge

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables)

    def add(self, counts: pa.Table) -> None:
        self.tables.append(counts)
        if self.rows > 2 * self.merged + MERGE_ROWS:
            self.total()

    def total(self) -> pa.Table:
        self.tables = [merged_counts(self.tables)]
        self.merged = self.tables[0].num_rows
        return self.tables[0]


def grow(piece: GrowPiece) -> dict[str, int]:
    """Write the increment of each block; return the rows of the field's table once each block is known."""
    folder, rows = Folder.at(piece.out), 1  # row 0 is out-of-vocabulary
    table_rows, earlier = {}, list[str]()
    for block, paths in piece.blocks.items():
        merger = CountMerger()
        for path in paths:
            merger.add(folder.read_parquet(path))
        try:
            new = _unknown(folder, earlier, merger.total(), piece.min_count)
        except pa.ArrowInvalid as differs:
            raise DataError(f"field {piece.field} has another type in some files: {differs}") from differs
        increment = pa.table({"id": new["id"], "row": np.arange(rows, rows + new.num_rows, dtype=np.int32)})
        earlier.append(increment_path(block, piece.field))
        folder.write_parquet(earlier[-1], increment)
        rows += new.num_rows
        table_rows[block] = rows
    return table_rows


def _unknown(folder: Folder, earlier: list[str], counts: pa.Table, min_count: int) -> pa.Table:
    """Ids with at least `min_count` rows that no earlier block added, by falling count, then by id."""
    new = counts.filter(pc.and_(pc.greater_equal(counts["count"], min_count), pc.is_valid(counts["id"])))
    for known in _increments(folder, earlier):
        new = new.filter(pc.invert(pc.is_in(new["id"], value_set=known["id"].combine_chunks())))
    return new.sort_by([("count", "descending"), ("id", "ascending")])


def increment_path(block: str, field: str) -> str:
    """Of the ids that a block adds to a field."""
    return f"vocabulary/{block}/{field}.parquet"


class SliceVocabulary:
    """Those ids of the vocabulary that occur in one slice; an Encoder (log.vocabulary) for its rows."""

    def __init__(self, folder: Folder, field: str, blocks: Iterable[str], ids: pa.ChunkedArray) -> None:
        """blocks: whose increments are known, in order; ids: of the slice."""
        wanted = ids.unique().drop_null()
        known, row = [wanted[:0]], [pa.array([], pa.int32())]
        self.rows = 1
        for table in _increments(folder, [increment_path(block, field) for block in blocks]):
            table = table.cast(pa.schema({"id": wanted.type, "row": pa.int32()}))
            here = table.filter(pc.is_in(table["id"], value_set=wanted))
            known += here["id"].chunks
            row += here["row"].chunks
            self.rows += table.num_rows
        self.known, self.row_K = pa.concat_arrays(known), pa.concat_arrays(row).to_numpy()

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the row of each id; 0 for an unknown or missing one; [N]."""
        place = pc.index_in(ids, value_set=self.known, skip_nulls=True)
        row_K = np.append(self.row_K, np.int32(0))
        place_N = place.fill_null(len(row_K) - 1).to_numpy()
        return row_K[place_N]


def _increments(folder: Folder, paths: list[str]) -> Iterator[pa.Table]:
    """Stored increments, a few ids at a time."""
    for path in paths:
        with folder.fs.open(folder / path, "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(LOOKUP_ROWS):
                yield pa.Table.from_batches([batch])

"""The vocabulary of a prepared log, grown and looked up on disk: no process holds a whole one.

A block's increment (columns id, row) is a file per field; what a process holds is the distinct ids of one
field in one block, or those of one slice. The next bottleneck is reading all increments for each slice: past
1e8 ids a field, hash. Shape suffixes: N rows, K known ids,
D distinct ids.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diet_ray import layout
from diet_ray.log.vocabulary import counted, frequent, increment_of, merged_counts, text_of
from diet_ray.storage import Folder

WAITING_IDS = 1 << 22  # counted ids that wait for a file, over all blocks and fields
LOOKUP_IDS = 1 << 20  # of an increment that are read at once


class CountFile(NamedTuple):
    """A file of counts (columns id, count) of one field in one block."""

    block: str
    field: str
    path: str


class GrowPiece(NamedTuple):
    """A unit of work: one field through all blocks that add ids."""

    out: str
    field: str
    counts: dict[str, tuple[str, ...]]  # block -> its files of counts, blocks in order of time
    min_count: int


class CountWriter:
    """Counts the ids of rows by block and field, and writes the counts before they are many."""

    def __init__(self, folder: Folder, fields: tuple[str, ...], number: int) -> None:
        """number: of the source file, by which the files of counts are named."""
        self.folder, self.fields, self.number = folder, fields, number
        self.waiting: dict[tuple[str, str], list[pa.Table]] = {}
        self.waiting_ids = 0
        self.files: list[CountFile] = []

    def add(self, block: str, rows: pa.Table) -> None:
        for field in self.fields:
            counts = counted(rows[field])
            self.waiting.setdefault((block, field), []).append(counts)
            self.waiting_ids += counts.num_rows
        if self.waiting_ids > WAITING_IDS:
            self.flush()

    def flush(self) -> None:
        for (block, field), counts in self.waiting.items():
            path = f"staging/counts/{block}/{field}/{self.number:05d}-{len(self.files):06d}.parquet"
            self.folder.write_parquet(path, merged_counts(counts), transient=True)
            self.files.append(CountFile(block, field, path))
        self.waiting, self.waiting_ids = {}, 0


def grow(piece: GrowPiece) -> dict[str, int]:
    """Write the increment of each block; return the rows of the field's table once each block is known."""
    folder, rows = Folder.at(piece.out), 1  # row 0 is out-of-vocabulary
    table_rows: dict[str, int] = {}
    for block, paths in piece.counts.items():
        new = frequent(merged_counts(map(folder.read_parquet, paths)), piece.min_count)
        for known in _increments(folder, piece.field, table_rows):
            new = new.filter(pc.invert(pc.is_in(new["id"], value_set=text_of(known["id"]))))
        folder.write_parquet(layout.vocabulary(block, piece.field), increment_of(new, rows))
        rows += new.num_rows
        table_rows[block] = rows
    return table_rows


class SliceVocabulary:
    """The known ids among those of a few slices; a log.vocabulary.Encoder for their rows."""

    def __init__(self, folder: Folder, field: str, blocks: Iterable[str], ids: list[pa.Array]) -> None:
        """blocks: those whose ids are known, in order of time; ids: of the slices, others encode to row 0."""
        wanted = pa.concat_arrays(ids).unique().drop_null()
        id_K, row_K = [wanted[:0]], [np.zeros(0, np.int32)]
        self.rows = 1
        for increment in _increments(folder, field, blocks):
            known = pc.is_in(text_of(increment["id"]), value_set=wanted)
            id_K.append(text_of(increment["id"]).filter(known))
            row_K.append(increment["row"].filter(known).to_numpy())
            self.rows += increment.num_rows
        self.id_K, self.row_K = pa.concat_arrays(id_K), np.append(np.concatenate(row_K), np.int32(0))

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the row of each id; 0 for an unknown or missing one; [N]."""
        coded = _coded(ids)
        unknown = len(self.id_K)
        place = pc.index_in(coded.dictionary, value_set=self.id_K, skip_nulls=True).fill_null(unknown)
        row_D = np.append(self.row_K[place.to_numpy()], np.int32(0))
        return row_D[coded.indices.fill_null(len(row_D) - 1).to_numpy()]


def distinct_ids(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Each id once, as text."""
    return _coded(ids).dictionary


def _coded(ids: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return array if pa.types.is_dictionary(array.type) else text_of(array).dictionary_encode("mask")


def _increments(folder: Folder, field: str, blocks: Iterable[str]) -> Iterator[pa.Table]:
    """The stored increments of a field, LOOKUP_IDS ids at a time."""
    for block in blocks:
        with folder.fs.open(folder / layout.vocabulary(block, field), "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(LOOKUP_IDS):
                yield pa.Table.from_batches([batch])

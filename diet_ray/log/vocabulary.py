"""Ids to table rows, growing with the stream: an id keeps its row forever, row 0 is out-of-vocabulary.

Shape suffixes: N rows.
"""

from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.errors import DataError


class Encoder(Protocol):
    """What turns the ids of one field into rows of its table."""

    @property
    def rows(self) -> int: ...  # of the table, row 0 included

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]: ...


class Vocabulary:
    """Append-only: a block's new ids are appended after all older ones.

    Held whole in memory, about 100 bytes an id: past 1e8 ids a field, shard it or hash.
    """

    def __init__(self) -> None:
        self._ids = pd.Index([])

    @property
    def rows(self) -> int:
        return len(self._ids) + 1

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the row of each id; 0 for an unknown or missing one; [N]."""
        known_N = self._ids.get_indexer(ids.to_pandas())
        return (np.where(pc.is_null(ids).to_numpy(zero_copy_only=False), -1, known_N) + 1).astype(np.int32)

    def grow(self, counts: pa.Table, min_count: int) -> pa.Table:
        """Append the ids of one block and return the increment (columns id, row).

        counts: columns id and count, each id once; ids seen fewer than `min_count` times in the block stay
        out. New ids are appended by falling count, then by id, whatever the order of `counts`.
        """
        frequent = counts.filter(
            pc.and_(pc.greater_equal(counts["count"], min_count), pc.is_valid(counts["id"]))
        )
        new = frequent.filter(pa.array(self.encode(frequent["id"]) == 0))
        new = new.sort_by([("count", "descending"), ("id", "ascending")])
        rows = pa.array(np.arange(self.rows, self.rows + new.num_rows, dtype=np.int32))
        increment = pa.table({"id": new["id"], "row": rows})
        self.extend(increment)
        return increment

    def extend(self, increment: pa.Table) -> None:
        """Append a stored increment; DataError where it does not continue this vocabulary."""
        if not increment.num_rows:
            return
        expected = np.arange(self.rows, self.rows + increment.num_rows)
        if not np.array_equal(increment["row"].to_numpy(), expected):
            first = increment["row"][0].as_py()
            raise DataError(f"vocabulary increment starts at row {first}, expected rows from {self.rows} on")
        added = pd.Index(increment["id"].to_pandas())
        self._ids = added if self._ids.empty else self._ids.append(added)
        if not self._ids.is_unique:
            raise DataError(f"vocabulary holds id {self._ids[self._ids.duplicated()][0]!r} twice")


class HashedEncoder:
    """Fixed buckets without state, for unbounded id spaces: ids may share a row; missing ids have row 0."""

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets

    @property
    def rows(self) -> int:
        return self.buckets + 1

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return 1 + hash(id) mod buckets, the same on every machine; [N]."""
        text = ids.cast(pa.string()).fill_null("").to_pandas().to_numpy(object)
        row_N = 1 + pd.util.hash_array(text, categorize=True) % np.uint64(self.buckets)
        return np.where(pc.is_null(ids).to_numpy(zero_copy_only=False), 0, row_N).astype(np.int32)

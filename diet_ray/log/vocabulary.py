"""Ids to table rows, growing with the stream: an id keeps its row forever, row 0 is out-of-vocabulary.

Shape suffixes: N rows.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.errors import DataError

WHOLE = r"^(0|-?[1-9][0-9]{0,37})$"  # an id that is a number; as many digits as a decimal128 holds


class Encoder(Protocol):
    """What turns the ids of one field into rows of its table."""

    @property
    def rows(self) -> int: ...  # of the table, row 0 included

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]: ...


class Vocabulary:
    """Append-only: the new ids of a block are appended after all older ones.

    Growing costs what is new, not what is known. Memory is about 150 bytes an id; `prepare` grows and looks
    up its vocabularies on disk (log.preparation.growth).
    """

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self.rows = 1

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the row of each id; 0 for an unknown or missing one; [N]."""
        coded = text_of(ids).dictionary_encode(null_encoding="mask")
        row = self._row.get
        row_N = np.array([row(id, 0) for id in coded.dictionary.to_pylist()] + [0], np.int32)
        return row_N[coded.indices.fill_null(len(row_N) - 1).to_numpy()]

    def grow(self, counts: pa.Table, min_count: int) -> pa.Table:
        """Append the ids of one block and return the increment (columns id, row).

        counts: columns id and count, each id once; ids seen fewer than `min_count` times in the block stay
        out. New ids are appended by falling count, then numbers by value, then text, whatever the order of
        `counts`.
        """
        table = frequent(counts, min_count)
        increment = increment_of(table.filter(pa.array(self.encode(table["id"]) == 0)), self.rows)
        self.extend(increment)
        return increment

    def extend(self, increment: pa.Table) -> None:
        """Append a stored increment; DataError where it does not continue this vocabulary."""
        expected = np.arange(self.rows, self.rows + increment.num_rows)
        if not np.array_equal(increment["row"].to_numpy(), expected):
            first = increment["row"][0].as_py()
            raise DataError(f"vocabulary increment starts at row {first}, expected rows from {self.rows} on")
        self.rows += increment.num_rows
        # Version 0.1.0 stored whole numbers as int64.
        ids = text_of(increment["id"]).to_pylist()
        for id, row in zip(ids, increment["row"].to_pylist(), strict=True):
            if self._row.setdefault(id, row) != row:
                raise DataError(f"vocabulary holds id {id!r} twice")


def text_of(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Ids as one array of text."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def frequent(counts: pa.Table, min_count: int) -> pa.Table:
    """Counts (columns id and count) of the ids that occur `min_count` times and more, as text."""
    ids = text_of(counts["id"])
    often = pc.and_(pc.greater_equal(counts["count"], min_count), pc.is_valid(ids))
    return pa.table({"id": ids, "count": counts["count"]}).filter(often)


def increment_of(new: pa.Table, first: int) -> pa.Table:
    """The increment (columns id, row) of new ids and their counts; rows from `first` on.

    By falling count, then numbers by value, then text.
    """
    rows = np.arange(first, first + new.num_rows, dtype=np.int32)
    return pa.table({"id": _in_order(new)["id"], "row": rows})


def _in_order(counts: pa.Table) -> pa.Table:
    is_number = pc.match_substring_regex(counts["id"], WHOLE)
    number = pc.if_else(is_number, counts["id"], pa.scalar(None, pa.string())).cast(pa.decimal128(38, 0))
    keys = [("count", "descending"), ("number", "ascending"), ("id", "ascending")]
    return counts.append_column("number", number).sort_by(keys)


def counted(ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """How often each id occurs (columns id and count), missing ones left out.

    Of ids as a dictionary that repeats one, so does the answer: `merged_counts` adds it up.
    """
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if pa.types.is_dictionary(array.type):
        count_D = np.bincount(array.indices.drop_null().to_numpy(), minlength=len(array.dictionary))
        return pa.table({"id": array.dictionary, "count": count_D}).filter(pa.array(count_D > 0))
    values, count = text_of(ids).drop_null().value_counts().flatten()
    return pa.table({"id": values, "count": count})


def merged_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """The sum of tables as `counted` makes them; needs memory for the distinct ids and the largest table."""
    total = pa.table({"id": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        # Adding up only what has become as large as the sum keeps the work linear.
        if sum(each.num_rows for each in waiting) >= total.num_rows:
            total, waiting = _sum([total, *waiting]), []
    return _sum([total, *waiting])


def _sum(tables: list[pa.Table]) -> pa.Table:
    both = pa.concat_tables([table.select(["id", "count"]) for table in tables])
    return both.group_by("id").aggregate([("count", "sum")]).rename_columns(["id", "count"])


class HashedEncoder:
    """Fixed buckets without state, for unbounded id spaces: ids may share a row; missing ids have row 0."""

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets

    @property
    def rows(self) -> int:
        return self.buckets + 1

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return 1 + hash(id) mod buckets, the same on every machine; [N]."""
        coded = text_of(ids).dictionary_encode(null_encoding="mask")
        texts = coded.dictionary.to_numpy(zero_copy_only=False)
        import pandas as pd  # here: of the processes of a run only those that encode need it

        row_N = 1 + pd.util.hash_array(texts, categorize=False) % np.uint64(self.buckets)
        row_N = np.append(row_N, 0).astype(np.int32)
        return row_N[coded.indices.fill_null(len(row_N) - 1).to_numpy()]

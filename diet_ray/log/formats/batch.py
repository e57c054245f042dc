"""What every reader of a file format hands on."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.errors import DataError
from diet_ray.log.values.numbers import mask

SHOWN = 10_000  # characters of a line that are kept with the reason why it could not be read


class Unread(NamedTuple):
    """A row that could not be read."""

    row: int  # its number in the file, from 1
    line: str
    reason: str


class Batch(NamedTuple):
    """Consecutive rows of a file."""

    table: pa.Table  # those that could be read, with the columns that were wanted
    row_N: NDArray[np.int64]  # their numbers in the file, from 1; a header and empty lines have none
    stop: int  # number of the last row of the file that was read
    unread: tuple[Unread, ...] = ()
    headers: int = 0  # header lines within the file (of files written one behind the other), left out


BatchIterator = Iterator[Batch]


class TableFile(Protocol):
    """An open file of a log."""

    @property
    def columns(self) -> list[str]:
        """Names as they stand in the file, in order, with repetitions."""

    def batches(self, wanted: Sequence[str]) -> BatchIterator:
        """The rows in order, with the columns `wanted` of `columns`."""


def without_headers(batch: Batch) -> Batch:
    """The batch without rows that are a header once more: each cell is the name of its column."""
    table = batch.table
    header_N = np.ones(table.num_rows, bool)
    for name in table.column_names:
        if not header_N.any():
            return batch
        cells = table[name]
        header_N &= mask(pc.equal(cells, pa.scalar(name, cells.type)))
    if not table.num_columns or not header_N.any():
        return batch
    kept = ~header_N
    return batch._replace(
        table=table.filter(pa.array(kept)), row_N=batch.row_N[kept], headers=int(header_N.sum())
    )


def check_unique(names: Sequence[str], path: str) -> None:
    """Raise DataError naming the column that a file has twice."""
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path} has the column {name} {names.count(name)} times; rename all but one")

"""Rows in stream order to shuffled batches, whatever the pieces they arrive in.

Shape suffixes: N rows, F fields, T tasks.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class EncodedRows(NamedTuple):
    """Rows of an encoded block."""

    id_NF: NDArray[np.int32]
    label_NT: NDArray[np.uint8]

    @property
    def rows(self) -> int:
        return len(self.id_NF)

    def take(self, rows: NDArray[np.int64] | slice) -> "EncodedRows":
        return EncodedRows(self.id_NF[rows], self.label_NT[rows])


def joined(parts: list[EncodedRows]) -> EncodedRows:
    return EncodedRows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def rechunked(chunks: Iterable[EncodedRows], rows: int) -> Iterator[EncodedRows]:
    """Yield the same rows in pieces of exactly `rows`, the last one shorter."""
    pending: list[EncodedRows] = []
    missing = rows
    for chunk in chunks:
        while chunk.rows >= missing:
            yield joined([*pending, chunk.take(slice(0, missing))])
            chunk, pending, missing = chunk.take(slice(missing, None)), [], rows
        if chunk.rows:
            pending.append(chunk)
            missing -= chunk.rows
    if pending:
        yield joined(pending)


def shuffled_batches(
    chunks: Iterable[EncodedRows], *, batch_size: int, buffer_rows: int, draw: np.random.Generator
) -> Iterator[EncodedRows]:
    """Yield batches of `batch_size` (the last one shorter), shuffled within windows of `buffer_rows`.

    A window of one row keeps the order of the stream; a block that fits into one window is permuted as a
    whole. The result depends on the order of the rows and on the other arguments, not on how the rows were
    cut into chunks. Needs memory for two windows.
    """
    if buffer_rows > 1:
        windows = rechunked(chunks, buffer_rows)
        chunks = (window.take(draw.permutation(window.rows)) for window in windows)
    return rechunked(chunks, batch_size)

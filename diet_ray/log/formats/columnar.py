"""Parquet, ORC and Arrow files: the columns that are wanted, in the types they are stored in."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.errors import DataError
from diet_ray.log.formats.batch import Batch, BatchIterator
from diet_ray.log.values.columns import checked, is_text, plain

BATCH_ROWS = 1_000_000


class Columnar:
    """An open file that is stored by columns (formats.batch.TableFile)."""

    def __init__(self, columns: list[str], rows: int | None = None) -> None:
        """rows: of the whole file, where the format records it."""
        self.columns, self.rows = columns, rows

    def batches(self, wanted: Sequence[str]) -> BatchIterator:
        row = 0
        for piece in self._pieces(list(wanted)):
            for start in range(0, piece.num_rows, BATCH_ROWS):
                rows = piece.slice(start, BATCH_ROWS)
                row_N = np.arange(row + 1, row + 1 + rows.num_rows)
                row += rows.num_rows
                columns = {name: checked(plain(rows[name])) for name in wanted}
                yield Batch(pa.table(columns), row_N, row)

    def _pieces(self, wanted: list[str]) -> Iterator[pa.Table]:
        raise NotImplementedError


class Parquet(Columnar):
    def __init__(self, file: BinaryIO, path: str) -> None:
        self.parquet = pq.ParquetFile(file)
        super().__init__(self.parquet.schema_arrow.names, self.parquet.metadata.num_rows)

    def _pieces(self, wanted: list[str]) -> Iterator[pa.Table]:
        for batch in self.parquet.iter_batches(BATCH_ROWS, columns=wanted):
            yield pa.Table.from_batches([batch])


class Orc(Columnar):
    def __init__(self, file: BinaryIO, path: str) -> None:
        try:
            from pyarrow import orc
        except ImportError as missing:
            raise DataError(f"{path} is ORC, which this build of pyarrow does not read") from missing
        self.orc: Any = orc.ORCFile(file)
        super().__init__(self.orc.schema.names, self.orc.nrows)

    def _pieces(self, wanted: list[str]) -> Iterator[pa.Table]:
        for stripe in range(self.orc.nstripes):
            yield pa.Table.from_batches([self.orc.read_stripe(stripe, columns=wanted)])


class ArrowFile(Columnar):
    def __init__(self, file: BinaryIO, path: str) -> None:
        self.ipc = pa.ipc.open_file(file)
        super().__init__(self.ipc.schema.names)

    def _pieces(self, wanted: list[str]) -> Iterator[pa.Table]:
        for number in range(self.ipc.num_record_batches):
            table = pa.Table.from_batches([self.ipc.get_batch(number)]).select(wanted)
            for column in table.columns:
                _check_layout(column)
            yield table


def _check_layout(column: pa.ChunkedArray) -> None:
    """Raise ArrowInvalid where offsets lead out of the file, which is not checked on reading."""
    for chunk in column.chunks:
        (chunk.view(pa.binary()) if is_text(chunk.type) else chunk).validate(full=True)

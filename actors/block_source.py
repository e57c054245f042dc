"""Ray Data reads a block: one task per part, whose rows come as one Arrow table with their numbers.

`read_parquet` cuts a block by bytes of its files, gives rows no number and checks neither pages nor counts;
the log's own reader, as a Ray Data source, does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from actors.data import quiet_data
from diet_ray.distillation.row_choice import Rows
from diet_ray.distillation.scored_rows import Span
from diet_ray.log.batches import EncodedRows, joined
from diet_ray.log.dataset import Block, EncodedLog


class EncodedParts(Datasource):
    """Parts of a block as a Ray Data source: columns row, cell, ids (F int32), labels (T uint8).

    Args:
        log: reference to the log of the block.
        block: the block.
        spans: its parts.
        row_bytes: of an encoded row.
        chosen: references to the Rows that are read of each part; all rows where it is None.
    """

    def __init__(
        self,
        log: Any,
        block: Block,
        spans: Sequence[Span],
        row_bytes: int,
        chosen: Sequence[Any] | None = None,
    ) -> None:
        super().__init__()
        self.log, self.block, self.spans, self.row_bytes, self.chosen = log, block, spans, row_bytes, chosen

    def get_name(self) -> str:
        return "EncodedParts"

    def estimate_inmemory_data_size(self) -> int:
        return sum(span.stop - span.first for span in self.spans) * self.row_bytes

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task per part, whatever the parallelism."""
        tasks = []
        for number, span in enumerate(self.spans):
            rows = span.stop - span.first
            # Of chosen rows the number is known only where they lie.
            metadata = BlockMetadata(
                num_rows=None if self.chosen else rows,
                size_bytes=rows * self.row_bytes,
                input_files=None,
                exec_stats=None,
            )
            chosen = self.chosen[number] if self.chosen else None
            read: Callable[[], Iterable[Any]] = partial(read_part, self.log, self.block, span, chosen)
            tasks.append(ReadTask(read, metadata))
        return tasks


def read_part(log: Any, block: Block, span: Span, chosen: Any | None) -> Iterator[pa.Table]:
    """The work of a read task: the rows of a part, or those chosen of them."""
    opened: EncodedLog = ray.get(log)
    rows = joined(list(opened.chunks(block, span.first, span.stop)))
    if chosen is None:
        numbers = span.row_numbers()
        yield as_table(rows, Rows(numbers, np.zeros_like(numbers)))
        return
    wanted: Rows = ray.get(chosen)
    yield as_table(rows.take(wanted.row_N - span.first), wanted)


def as_table(rows: EncodedRows, numbers: Rows) -> pa.Table:
    return pa.table(
        {
            "row": numbers.row_N,
            "cell": numbers.cell_N,
            "ids": _fixed_lists(rows.id_NF),
            "labels": _fixed_lists(rows.label_NT),
        }
    )


def from_table(table: pa.Table) -> tuple[EncodedRows, Rows]:
    """Inverse of `as_table`."""
    numbers = Rows(table["row"].to_numpy(), table["cell"].to_numpy())
    return EncodedRows(_matrix(table["ids"]), _matrix(table["labels"])), numbers


def part_tables(
    log: EncodedLog, block: Block, spans: Sequence[Span], chosen: Sequence[Any] | None = None
) -> Iterator[Any]:
    """References to the tables of the parts, in order, as Ray Data has read them."""
    quiet_data()
    row_bytes = 4 * len(log.fields) + len(log.tasks) + 16
    source = EncodedParts(ray.put(log), block, spans, row_bytes, chosen)
    for bundle in ray.data.read_datasource(
        source, override_num_blocks=len(spans)
    ).iter_internal_ref_bundles():
        yield from bundle.block_refs


def _fixed_lists(value_NX: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(value_NX).reshape(-1)), value_NX.shape[1]
    )


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    array = column.combine_chunks()
    return array.flatten().to_numpy().reshape(len(array), array.type.list_size)

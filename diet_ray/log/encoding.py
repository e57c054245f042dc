"""Normalised rows to a file of an encoded block: in order of time, ids as rows of tables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import layout
from diet_ray.log.dataset import Block, Part
from diet_ray.log.schema import LogSchema
from diet_ray.log.vocabulary import Encoder
from diet_ray.seeding import numpy_generator
from diet_ray.storage import FileStamp, Folder


class EncodedPart(NamedTuple):
    """One file of an encoded block."""

    block: str
    stamp: FileStamp
    rows: int
    min_ts: int
    max_ts: int
    label_groups: dict[int, int]


def write_part(
    folder: Folder,
    rows: pa.Table,
    schema: LogSchema,
    block: str,
    part: int,
    encoder: Callable[[str], Encoder],
) -> EncodedPart:
    """Encode rows (log.normalise) into the file of one part; `encoder` gives that of a field."""
    # Rows of the same time come in random order: logs are often written user by user.
    tie_N = numpy_generator(0, "ties", block, part).permutation(rows.num_rows)
    rows = rows.take(pa.array(np.lexsort((tie_N, rows["ts"].to_numpy()))))
    columns: dict[str, Any] = {"ts": rows["ts"]}
    columns |= {field: encoder(field).encode(rows[field]) for field in schema.field_names}
    columns |= {task: rows[task] for task in schema.task_names}
    group_N = sum(rows[task].to_numpy().astype(np.int64) << t for t, task in enumerate(schema.task_names))
    label_group, count = np.unique(group_N, return_counts=True)
    stamp = folder.write_parquet(layout.block_part(block, part), pa.table(columns))
    span = pc.min_max(rows["ts"]).as_py()
    groups = dict(zip(label_group.tolist(), count.tolist(), strict=True))
    return EncodedPart(block, stamp, rows.num_rows, span["min"], span["max"], groups)


def block_of(name: str, parts: list[EncodedPart], table_rows: tuple[int, ...]) -> Block:
    """A block of its parts, in their order."""
    firsts = np.cumsum([0] + [part.rows for part in parts]).tolist()
    groups = sorted({group for part in parts for group in part.label_groups})
    return Block(
        name=name,
        rows=firsts[-1],
        min_ts=min(part.min_ts for part in parts),
        max_ts=max(part.max_ts for part in parts),
        table_rows=table_rows,
        label_groups={g: sum(part.label_groups.get(g, 0) for part in parts) for g in groups},
        parts=tuple(Part(p.stamp, p.rows, first) for p, first in zip(parts, firsts, strict=False)),
    )

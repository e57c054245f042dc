"""The memory: synthetic rows, where they came from, and their Parquet file.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diet_ray.distillation.addressing import lowest
from diet_ray.distillation.el2n import labels_of_group
from diet_ray.distillation.influence import alignment, direction
from diet_ray.errors import RunError
from diet_ray.memory_schema import METADATA_KEY, MemorySchema, stored_schema
from diet_ray.models.examples import Examples, LossPerExample, Params


class Memory(NamedTuple):
    """Synthetic rows and the origin of each."""

    emb_NFD: Tensor
    logit_NT: Tensor
    stage_N: Tensor  # int32: the stage whose block the row was selected from
    group_N: Tensor  # int32: label group of the real row it started from (el2n.label_group)
    influence_N: Tensor  # weight of eq. 10 at the last fusion; NaN for a row of the newest stage

    @property
    def rows(self) -> int:
        return self.emb_NFD.shape[0]

    def examples(self) -> Examples:
        """The rows with their soft labels."""
        return Examples(self.emb_NFD, self.logit_NT.sigmoid())

    def with_log_labels(self) -> Examples:
        """The rows with the labels of the real rows they started from."""
        label_NT = labels_of_group(self.group_N, self.logit_NT.shape[1])
        return Examples(self.emb_NFD, label_NT.to(self.emb_NFD.dtype))

    def take(self, rows: Tensor) -> "Memory":
        return Memory(*(part[rows] for part in self))

    def to(self, device: torch.device) -> "Memory":
        return Memory(*(part.to(device) for part in self))


def fusion_direction(loss: LossPerExample, params: Params, new: Memory) -> Params:
    """The direction along which old rows are weighed: the gradient of the new rows' summed loss (eq. 10).

    The new rows enter with the log's labels: their soft labels are the checkpoint's own logits, and the
    gradient of a checkpoint's loss against its own logits is zero.
    """
    return direction(loss, params, new.with_log_labels())


def fuse(
    loss: LossPerExample,
    params: Params,
    *,
    new: Memory,
    old: Memory,
    keep: int,
    weight_N: Tensor | None = None,
) -> Memory:
    """Return the new rows and the `keep` old rows that influence them most (eqs. 10-11).

    Kept rows stay in order; their `influence_N` becomes the summed influence on all new rows.

    weight_N: alignment of the old rows with `fusion_direction`, where it is known already.
    """
    if weight_N is None:
        weight_N = alignment(loss, params, old.examples(), fusion_direction(loss, params, new))
    rows_N = lowest(-weight_N, keep).sort().values
    kept = old._replace(influence_N=weight_N.to(old.influence_N.dtype)).take(rows_N)
    return Memory(*(torch.cat(parts) for parts in zip(new, kept, strict=True)))


def to_arrow(memory: Memory, schema: MemorySchema, reference: str) -> pa.Table:
    """Columns embedding (list of F*D float32), logits (list of T float32), stage, label_group, influence.

    reference: path of the checkpoint whose embedding space the rows are in.
    """
    memory = memory.to(torch.device("cpu"))
    # Names of the file format: "width" is the dimension of an embedding.
    description = {"fields": schema.fields, "width": schema.dim, "tasks": schema.tasks}
    description |= {"F": len(schema.fields), "d": schema.dim, "K": len(schema.tasks)}
    columns = {
        "embedding": _fixed_lists(memory.emb_NFD.flatten(1)),
        "logits": _fixed_lists(memory.logit_NT),
        "stage": pa.array(memory.stage_N.numpy(), pa.int32()),
        "label_group": pa.array(memory.group_N.numpy(), pa.int32()),
        "influence": pa.array(memory.influence_N.numpy(), pa.float32()),
    }
    metadata = {METADATA_KEY: json.dumps({**description, "reference": reference}).encode()}
    return pa.table(columns).replace_schema_metadata(metadata)


def from_arrow(table: pa.Table, expected: MemorySchema) -> Memory:
    """Read a memory back; RunError names the key in which its schema differs from the expected one."""
    stored = stored_schema(table)
    for key, value in expected._asdict().items():
        if getattr(stored, key) != value:
            raise RunError(f"memory of another schema: {key} is {getattr(stored, key)}, expected {value}")
    rows, fields, tasks = table.num_rows, len(expected.fields), len(expected.tasks)
    return Memory(
        emb_NFD=_flat(table["embedding"]).view(rows, fields, expected.dim),
        logit_NT=_flat(table["logits"]).view(rows, tasks),
        stage_N=torch.tensor(table["stage"].to_numpy()),
        group_N=torch.tensor(table["label_group"].to_numpy()),
        influence_N=torch.tensor(table["influence"].to_numpy()),
    )


def _fixed_lists(value_NX: Tensor) -> pa.FixedSizeListArray:
    flat = np.ascontiguousarray(value_NX.float().numpy()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), value_NX.shape[1])


def _flat(column: pa.ChunkedArray) -> Tensor:
    return torch.tensor(column.combine_chunks().flatten().to_numpy())

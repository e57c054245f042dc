"""The distilled data: synthetic rows, where they came from, and the Parquet file people come for.

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
from diet_ray.distillation.influence import summed_influence
from diet_ray.errors import RunError
from diet_ray.models.examples import Examples, LossPerExample, Params

METADATA_KEY = b"diet_ray"


class Memory(NamedTuple):
    """Synthetic rows and what is known of each."""

    emb_NFD: Tensor
    logit_NT: Tensor
    stage_N: Tensor  # int32: the stage in which the row was born
    group_N: Tensor  # int32: label group of the real row it started from (scoring.label_group)
    influence_N: Tensor  # eq. 10 weight when last kept; NaN for a row of the newest stage

    @property
    def rows(self) -> int:
        return self.emb_NFD.shape[0]

    def examples(self) -> Examples:
        return Examples(self.emb_NFD, self.logit_NT.sigmoid())

    def born(self) -> Examples:
        """The rows with the labels of the real rows they started from."""
        label_NT = labels_of_group(self.group_N, self.logit_NT.shape[1])
        return Examples(self.emb_NFD, label_NT.to(self.emb_NFD.dtype))

    def take(self, rows: Tensor) -> "Memory":
        return Memory(*(part[rows] for part in self))

    def to(self, device: torch.device) -> "Memory":
        return Memory(*(part.to(device) for part in self))


class MemorySchema(NamedTuple):
    """What must agree before a memory may be used: it travels in the file's schema metadata."""

    fields: tuple[str, ...]
    dim: int
    tasks: tuple[str, ...]


def fuse(loss: LossPerExample, params: Params, *, new: Memory, old: Memory, keep: int) -> Memory:
    """Return the new rows and the `keep` old rows that influence them most (eqs. 10-11).

    Kept rows stay in their order and carry their weight, the summed influence on all new rows. The new rows
    enter with their real labels: their soft labels are what the checkpoint itself says of them, and the
    gradient of a checkpoint's loss against its own answers is zero.
    """
    weight_N = summed_influence(loss, params, sources=new.born(), targets=old.examples())
    rows_N = lowest(-weight_N, keep).sort().values
    kept = old._replace(influence_N=weight_N.to(old.influence_N.dtype)).take(rows_N)
    return Memory(*(torch.cat(parts) for parts in zip(new, kept, strict=True)))


def to_arrow(memory: Memory, schema: MemorySchema, reference: str) -> pa.Table:
    """Columns embedding (list of F*D float32), logits (list of T float32), stage, label_group, influence.

    `reference` names the checkpoint whose embedding space the rows live in.
    """
    memory = memory.to(torch.device("cpu"))
    # The file format's names, which readers in other languages know: width is the embedding's dimension.
    described = {"fields": schema.fields, "width": schema.dim, "tasks": schema.tasks}
    described |= {"F": len(schema.fields), "d": schema.dim, "K": len(schema.tasks)}
    columns = {
        "embedding": _fixed_lists(memory.emb_NFD.flatten(1)),
        "logits": _fixed_lists(memory.logit_NT),
        "stage": pa.array(memory.stage_N.numpy(), pa.int32()),
        "label_group": pa.array(memory.group_N.numpy(), pa.int32()),
        "influence": pa.array(memory.influence_N.numpy(), pa.float32()),
    }
    metadata = {METADATA_KEY: json.dumps({**described, "reference": reference}).encode()}
    return pa.table(columns).replace_schema_metadata(metadata)


def from_arrow(table: pa.Table, expected: MemorySchema) -> Memory:
    """Read a memory back; RunError names what differs where it is of another schema."""
    found = stored_schema(table)
    for key, wanted in expected._asdict().items():
        if getattr(found, key) != wanted:
            raise RunError(f"memory of another schema: {key} is {getattr(found, key)}, expected {wanted}")
    rows, fields, tasks = table.num_rows, len(expected.fields), len(expected.tasks)
    return Memory(
        emb_NFD=_flat(table["embedding"]).view(rows, fields, expected.dim),
        logit_NT=_flat(table["logits"]).view(rows, tasks),
        stage_N=torch.tensor(table["stage"].to_numpy()),
        group_N=torch.tensor(table["label_group"].to_numpy()),
        influence_N=torch.tensor(table["influence"].to_numpy()),
    )


def stored_schema(table: pa.Table) -> MemorySchema:
    """What a memory says of itself; RunError where it is not one."""
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise RunError("not a diet_ray memory: its schema metadata has no diet_ray entry")
    try:
        found = json.loads(metadata)
        return MemorySchema(tuple(found["fields"]), found["width"], tuple(found["tasks"]))
    except (ValueError, KeyError, TypeError) as broken:
        raise RunError(f"not a diet_ray memory: its metadata is malformed ({broken})") from broken


def _fixed_lists(value_NX: Tensor) -> pa.FixedSizeListArray:
    flat = np.ascontiguousarray(value_NX.float().numpy()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), value_NX.shape[1])


def _flat(column: pa.ChunkedArray) -> Tensor:
    return torch.tensor(column.combine_chunks().flatten().to_numpy())

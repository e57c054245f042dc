"""A prepared log of a few hundred rows in which every block is of its own kind, and models that fit it.

Each block has another rule for its labels and parts of uneven length, so that a score, a row or a checkpoint
shows which block it comes from.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from diet_ray import layout
from diet_ray.config import InnerConfig, MethodConfig, OuterConfig, ReferenceConfig, RunConfig, TrainingConfig
from diet_ray.log.dataset import FORMAT, MANIFEST, Block, Part, PreparedLog, plain_block
from diet_ray.model_config import HeadConfig
from diet_ray.storage import Folder

FIELDS, TASKS = ("user", "item", "hour"), ("click", "like")
ROWS = {"0001": 160, "0002": 140, "subsequent": 90, "validation": 130, "test": 110}
# Ids of each field once a block is known; validation and test add none.
TABLE_ROWS = {"0001": (20, 9, 5), "0002": (26, 12, 5), "subsequent": (30, 15, 5)}

HEAD = HeadConfig(experts=2, expert_hidden=(6,), tower_hidden=(4,))
REFERENCE = ReferenceConfig(name="dcn", options={"hidden": [6]}, head=HEAD, ensemble=("dcn",))
SMALL = RunConfig(
    ratio=0.2,
    dim=4,
    pool_rows=100,
    reference=REFERENCE,
    training=TrainingConfig(batch_size=32, learning_rate=0.02),
    method=MethodConfig(
        inner=InnerConfig(batch_size=6, horizon=4, window=2, learning_rate=0.01),
        outer=OuterConfig(
            iterations=4, real_rows=60, memory_rows=25, address_every=2, embedding_rate=0.01, logit_rate=0.05
        ),
    ),
)


def write_distinct_blocks(folder: Path) -> PreparedLog:
    """Write the log below `folder` and open it."""
    target, table_rows, blocks = Folder.at(str(folder)), TABLE_ROWS["0001"], []
    for number, (name, rows) in enumerate(ROWS.items()):
        if name in TABLE_ROWS:
            _write_vocabulary(target, name, table_rows if number else (1,) * len(FIELDS), TABLE_ROWS[name])
        table_rows = TABLE_ROWS.get(name, table_rows)
        draw = np.random.default_rng(number)
        id_NF = np.stack([draw.integers(count, size=rows) for count in table_rows], 1)
        weight_F = draw.normal(size=3)
        score_N = np.sin(id_NF * (1 + number)) @ weight_F + draw.normal(size=rows) / 3
        label_NT = np.stack([score_N > 0.2, np.sin(score_N * 3 + number) > 0], 1)
        blocks.append(_written(target, name, number, table_rows, id_NF, label_NT))
    manifest = {"format": FORMAT, "name": "small", "fields": FIELDS, "tasks": TASKS, "outside": 0}
    manifest |= {"quarantined": 0, "blocks": [plain_block(block) for block in blocks]}
    manifest["schema"] = {"name": "small", "time": {"column": "ts"}, "fields": FIELDS, "tasks": TASKS}
    target.write_json(MANIFEST, manifest)
    return PreparedLog.open(str(folder))


def _write_vocabulary(folder: Folder, block: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """The ids of a block; each is called by its row."""
    for field, first, stop in zip(FIELDS, before, after, strict=True):
        row_N = np.arange(first, stop, dtype=np.int32)
        table = pa.table({"id": [str(row) for row in row_N], "row": row_N})
        folder.write_parquet(layout.vocabulary(block, field), table)


def _written(
    folder: Folder,
    name: str,
    number: int,
    table_rows: tuple[int, ...],
    id_NF: np.ndarray,
    label_NT: np.ndarray,
) -> Block:
    columns = {field: pa.array(id_NF[:, f].astype(np.int32)) for f, field in enumerate(FIELDS)}
    columns |= {task: pa.array(label_NT[:, t].astype(np.uint8)) for t, task in enumerate(TASKS)}
    table, parts = pa.table(columns), []
    for part, (first, stop) in enumerate(pairwise([0, len(id_NF) // 3, len(id_NF)])):
        stamp = folder.write_parquet(layout.block_part(name, part), table.slice(first, stop - first))
        parts.append(Part(stamp, stop - first, first))
    groups, counts = np.unique(label_NT @ [1, 2], return_counts=True)
    label_groups = {int(group): int(rows) for group, rows in zip(groups, counts, strict=True)}
    return Block(name, len(id_NF), number, number, table_rows, label_groups, tuple(parts))


def same_tensors(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether two models have the same parameters and buffers to the bit."""
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)

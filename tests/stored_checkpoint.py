"""A learner's state as a stored checkpoint, in memory."""

import uuid

import numpy as np
import torch
from torch import Tensor

from diet_ray import layout
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.checkpoints.writing import dense_state, table_slices, write_checkpoint
from diet_ray.training.recommender import Recommender
from diet_ray.training.serialization import to_safetensors


def in_memory() -> Folder:
    """A folder of its own that no disk has."""
    return Folder.at(f"memory://{uuid.uuid4().hex}")


def stored(learner: Recommender) -> StoredCheckpoint:
    """A full checkpoint of a learner."""
    folder = in_memory()
    write_checkpoint(folder, 1, learner, [np.empty(0, np.int64) for _ in learner.tables.rows])
    return StoredCheckpoint(folder, 1)


def state_of(learner: Recommender) -> dict[str, Tensor]:
    """Everything that the next step starts from, by the names of version 0.1."""
    state = dense_state(learner)
    for field, (table, weight) in enumerate(
        zip(table_slices(learner), learner.tables.weights(), strict=True)
    ):
        state[f"tables.{field}"] = table.weight_RD
        state |= {f"tables.{field}.{name}": moment for name, moment in table.moments.items()}
        if table.moments:
            state[f"tables.{field}.step"] = torch.tensor(learner.table_optimiser.state[weight]["step"])
    return state


def same_state(first: Recommender, second: Recommender) -> bool:
    """Whether two learners are the same, bit for bit."""
    ours, theirs = state_of(first), state_of(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def single_file(learner: Recommender, folder: Folder, stage: int = 1) -> StoredCheckpoint:
    """A checkpoint as version 0.1 wrote it."""
    folder.write(layout.single_file_checkpoint(stage), to_safetensors(state_of(learner)))
    return StoredCheckpoint(folder, stage)

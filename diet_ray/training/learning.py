"""One epoch of learning on a block of real rows.

Shape suffixes: N rows, F fields, T tasks.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from diet_ray.config import TrainingConfig
from diet_ray.log.batches import EncodedRows, shuffled_batches
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.base import DenseModel
from diet_ray.seeding import numpy_generator, torch_generator
from diet_ray.training.device import default_device
from diet_ray.training.joined_tables import JoinedTables
from diet_ray.training.recommender import Recommender
from diet_ray.training.rehearsal import Rehearsal

Report = Callable[[int], None]  # called with the rows done since the last call


def new_recommender(
    dense: DenseModel,
    log: EncodedLog,
    dim: int,
    training: TrainingConfig,
    dense_rate: float | None = None,
    *,
    joined: bool = False,
) -> Recommender:
    """A recommender with empty tables on this process's device.

    dense_rate: learning rate of the dense model; that of the tables where it is None.
    joined: its tables as one (JoinedTables): faster, and they stay its own.
    """
    return Recommender(
        dense,
        len(log.fields),
        dim,
        learning_rate=training.learning_rate,
        dense_rate=dense_rate,
        clip_norm=training.clip_norm,
        device=default_device(),
        tables=JoinedTables(len(log.fields), dim) if joined else None,
    )


def learn_block(
    recommender: Recommender,
    log: EncodedLog,
    block: Block,
    training: TrainingConfig,
    seed: int,
    report: Report = lambda rows: None,
    rehearsal: Rehearsal | None = None,
) -> float:
    """Grow the tables to `block` and learn it for one epoch.

    Args:
        recommender: learns in place.
        log: the log of the block.
        block: rows to learn, in time order.
        training: batch size and shuffle window; learning rates are the recommender's own.
        seed: of new table rows and of the shuffle.
        report: called after every step with its rows.
        rehearsal: memory rows mixed into every batch.

    Returns:
        The mean training loss of the block's rows.
    """
    recommender.grow(block.table_rows, torch_generator(seed, "grow", block.name))
    batches = shuffled_batches(
        log.chunks(block),
        batch_size=training.batch_size,
        buffer_rows=training.shuffle_rows,
        draw=numpy_generator(seed, "shuffle", block.name),
    )
    return learn_batches(recommender, batches, report, rehearsal) / block.rows


def learn_batches(
    recommender: Recommender,
    batches: Iterable[EncodedRows],
    report: Report = lambda rows: None,
    rehearsal: Rehearsal | None = None,
) -> float:
    """A step on each batch, as `learn_block` takes them; returns the summed loss of their rows."""
    total = 0.0
    for batch in batches:
        id_NF, label_NT = tensors(batch, recommender.device)
        rehearsed = rehearsal.draw(batch.rows) if rehearsal else None
        weight = rehearsal.weight if rehearsal else 1.0
        total += recommender.step(id_NF, label_NT, rehearsed, weight) * batch.rows
        report(batch.rows)
    return total


def tensors(rows: EncodedRows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids int64 [N, F] and labels float32 [N, T]."""
    return torch.as_tensor(rows.id_NF).long().to(device), torch.as_tensor(rows.label_NT).float().to(device)

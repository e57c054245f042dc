"""The tables that a judged candidate starts from: its own, the reference's, or between the two.

With the reference's tables all candidates look alike, because most of what full training ranks by is how well
a candidate learns tables of its own; with empty ones history is lost. Tables between the two let a candidate
shape its own and keep some history (shrink and perturb: Ash and Adams, arXiv 1910.08475).
"""

import torch

from diet_ray.errors import RunError
from diet_ray.seeding import torch_generator
from diet_ray.training.checkpoints.restoring import restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.recommender import Recommender
from diet_ray.training.tables import INITIAL_DEVIATION


def mixed_tables(recommender: Recommender, checkpoint: StoredCheckpoint, share: float, seed: int) -> None:
    """Set the tables to `share` x the reference's + (1 - `share`) x fresh ones, with fresh moments.

    A share of 0 is a fresh table of the reference's size, a share of 1 the reference's table without the
    moments of its optimiser.

    Raises:
        ValueError: share is outside [0, 1].
        RunError: the checkpoint is damaged or its tables do not fit.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of the reference is {share}, not within [0, 1]")
    restore_tables(recommender, checkpoint)
    draw = torch_generator(seed, "judge", "tables")
    with torch.no_grad():
        for weight in recommender.tables.weights():
            fresh = torch.randn(weight.shape, generator=draw) * INITIAL_DEVIATION
            weight.data = share * weight.data + (1 - share) * fresh.to(weight.device)
            recommender.table_optimiser.state.pop(weight, None)


def need_checkpoint(judge: str, checkpoint: StoredCheckpoint | None) -> StoredCheckpoint:
    """The checkpoint; RunError where a judge that needs one has none."""
    if checkpoint is None:
        raise RunError(f"judge {judge} needs a committed checkpoint of the reference")
    return checkpoint

"""Puts a stored checkpoint back into a recommender."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from diet_ray.errors import RunError
from diet_ray.models.base import DenseModel
from diet_ray.training.checkpoints.stored import MOMENTS, StoredCheckpoint
from diet_ray.training.recommender import Recommender


def restore(learner: Recommender, stored: StoredCheckpoint) -> None:
    """Put a saved state into a freshly built recommender; its tables take the saved sizes.

    Raises:
        DataError: where a file is missing.
        RunError: where one is damaged, or the checkpoint is of another architecture or log.
    """
    dense = stored.dense()
    restore_dense(learner.dense, dense)
    for name, weight in learner.dense.named_parameters():
        if f"dense.{name}.step" not in dense:
            continue
        moments = {moment: dense[f"dense.{name}.{moment}"].to(weight.device) for moment in MOMENTS}
        learner.dense_optimiser.state[weight] = {"step": dense[f"dense.{name}.step"], **moments}
    restore_tables(learner, stored)


def restore_dense(model: DenseModel, saved: Mapping[str, Tensor]) -> None:
    """Load the weights of a dense model; RunError where they are of another architecture."""
    try:
        model.load_state_dict({name: saved[f"dense.{name}"] for name in model.state_dict()})
    except (KeyError, RuntimeError) as differs:
        raise RunError(f"checkpoint is of another architecture: {differs}") from differs


def restore_tables(learner: Recommender, stored: StoredCheckpoint) -> None:
    """Give a candidate the reference's tables and their optimiser's moments, as far as it was trained.

    Without the moments the first steps on the next block move every row by the whole learning rate, which a
    model trained on all history does not suffer (docs/tried.md).
    Raises DataError or RunError as `restore`.
    """
    weights = learner.tables.weights()
    check_tables(stored, fields=len(weights), dim=weights[0].shape[1])
    for field, weight in enumerate(weights):
        step, count = stored.steps[field], stored.table_rows[field]
        held = np.arange(learner.tables.first, count, learner.tables.stride)
        rows = stored.rows(field, held, moments=step is not None)
        learner.tables.put(field, count, rows.weight_KD.to(learner.device))
        if step is not None:
            moments = {name: moment.to(learner.device) for name, moment in rows.moments.items()}
            learner.table_optimiser.state[weight] = {"step": step, **moments}


def check_tables(stored: StoredCheckpoint, *, fields: int, dim: int) -> None:
    """RunError where a checkpoint has other tables than a model of these sizes takes."""
    if len(stored.table_rows) < fields:
        missing = len(stored.table_rows)
        raise RunError(f"checkpoint is of another log: it has no table of field {missing}")
    if stored.dim != dim:
        raise RunError(f"checkpoint has embeddings of dim {stored.dim}, not {dim}")

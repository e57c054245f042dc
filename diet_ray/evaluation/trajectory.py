"""How fast a candidate learns: validation AUC along full and distilled training (Figure 1)."""

import time
from typing import NamedTuple

from diet_ray.config import CandidateConfig
from diet_ray.evaluation.cell import Setting
from diet_ray.models.examples import Examples
from diet_ray.training.candidate import score_rows
from diet_ray.training.checkpoints.restoring import restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.learning import learn_block

POINTS = 30  # of a curve of full training


class Point(NamedTuple):
    steps: int  # of the optimiser
    seconds: float  # of training, validation left out
    auc: float  # on the validation rows, mean over tasks


def full_trajectory(candidate: CandidateConfig, seed: int, setting: Setting) -> list[Point]:
    """One epoch over all history, scored POINTS times on the way."""
    log, training = setting.log, setting.training
    recommender = setting.recommender(candidate, seed)
    every = max(1, sum(block.rows for block in log.history) // training.batch_size // POINTS)
    curve: list[Point] = []
    steps, trained, started = 0, 0.0, time.perf_counter()

    def note(rows: int) -> None:
        nonlocal steps, trained, started
        steps += 1
        if steps % every == 0:
            trained += time.perf_counter() - started
            # Embedded anew: the tables learn too.
            validation = setting.validation(recommender)
            curve.append(Point(steps, trained, score_rows(recommender.dense, validation).auc))
            recommender.dense.train()
            started = time.perf_counter()

    for block in log.history:
        learn_block(recommender, log, block, training, seed, note)
    return curve


def reduced_trajectory(
    candidate: CandidateConfig, seed: int, setting: Setting, checkpoint: StoredCheckpoint, reduced: Examples
) -> list[Point]:
    """Epochs over reduced rows under the reference's tables, each scored."""
    recommender = setting.recommender(candidate, seed)
    restore_tables(recommender, checkpoint)
    training = setting.candidate_training(recommender, candidate, reduced, seed)
    steps_per_epoch = -(-reduced.rows // setting.fit.batch_size)
    curve: list[Point] = []
    trained = 0.0
    while not training.finished:
        started = time.perf_counter()
        training.train()
        trained += time.perf_counter() - started
        training.score()
        curve.append(Point(steps_per_epoch * len(training.scores), trained, training.scores[-1].auc))
    return curve

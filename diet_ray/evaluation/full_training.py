"""The truth about a candidate: a full training, and all that can be read off it on the way."""

import time
from typing import Any, NamedTuple

import numpy as np

from diet_ray.config import CandidateConfig, TrainingConfig
from diet_ray.evaluation.before_learned import Progress, learn_and_score
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.training.candidate_setup import candidate_recommender
from diet_ray.training.embedding import predict_block
from diet_ray.training.metrics import Scores

PIECES = 8  # of a block, in each of which the scores before learning are summed up


class FullTraining(NamedTuple):
    """A candidate after one pass over all history and the subsequent block."""

    pieces: dict[str, list[Scores]]  # block -> scores of its pieces before they were learned
    subsequent: Progress
    validation: Progress
    test: Progress
    tasks: tuple[str, ...]
    rows: int
    seconds: float  # of CPU

    def flat(self) -> dict[str, Any]:
        """The record, without rows."""
        return {
            "validation": _plain(self.validation.scores(self.tasks)),
            "test": _plain(self.test.scores(self.tasks)),
            "progressive_auc": {
                name: [round(piece.auc, 6) for piece in pieces] for name, pieces in self.pieces.items()
            },
            "progressive_logloss": {
                name: [round(piece.logloss, 6) for piece in pieces] for name, pieces in self.pieces.items()
            },
            "rows": self.rows,
            "seconds": round(self.seconds, 1),
        }


def train_fully(
    candidate: CandidateConfig, seed: int, log: PreparedLog, dim: int, training: TrainingConfig
) -> FullTraining:
    """Train and score a candidate as the method `full` of the comparison does.

    Raises:
        ConfigError: where the candidate cannot be built.
        DataError: where training diverges.
    """
    started = time.process_time()
    recommender = candidate_recommender(candidate, seed, log, dim, training, joined=True)
    pieces: dict[str, list[Scores]] = {}
    blocks = [*log.history, log.blocks["subsequent"]]
    for block in blocks:
        progress = learn_and_score(recommender, log, block, training, seed)
        pieces[block.name] = [part.scores(log.tasks) for part in progress.parts(PIECES)]

    def judged(block: Block) -> Progress:
        return Progress(*predict_block(recommender, log, block))

    return FullTraining(
        pieces=pieces,
        subsequent=progress,
        validation=judged(log.blocks["validation"]),
        test=judged(log.blocks["test"]),
        tasks=log.tasks,
        rows=sum(block.rows for block in blocks),
        seconds=time.process_time() - started,
    )


def row_arrays(trained: FullTraining) -> dict[str, np.ndarray]:
    """Logits per row as half floats, for whoever compares candidates row by row."""
    blocks = ("subsequent", "validation", "test")
    return {name: getattr(trained, name).logit_NT.astype(np.float16) for name in blocks}


def _plain(scores: Scores) -> dict[str, Any]:
    tasks = {name: task._asdict() for name, task in scores.tasks.items()}
    return {"auc": scores.auc, "logloss": scores.logloss, "tasks": tasks}

"""One cell of the comparison: a method, a candidate architecture and a seed (paper, section 5).

The protocol: the dense part learns from what the method offers in place of history, the whole model then
learns the subsequent block for one epoch while it rehearses those rows, and the test block is scored once.
"""

import time
from typing import Any, NamedTuple

from diet_ray.config import CandidateConfig, FitConfig, TrainingConfig
from diet_ray.errors import ConfigError
from diet_ray.evaluation.methods import REDUCED, WITHOUT_TABLES, Method
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.candidate_setup import candidate_recommender, validation_rows
from diet_ray.training.checkpoints.restoring import restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.device import peak_bytes, reset_peak
from diet_ray.training.embedding import score_block
from diet_ray.training.learning import learn_block
from diet_ray.training.metrics import Scores
from diet_ray.training.recommender import Recommender
from diet_ray.training.rehearsal import Rehearsal


class Setting(NamedTuple):
    """What all cells of a comparison share."""

    log: PreparedLog
    dim: int
    training: TrainingConfig
    fit: FitConfig

    def recommender(self, candidate: CandidateConfig, seed: int, *, joined: bool = False) -> Recommender:
        """A candidate with empty tables; joined where they stay its own (`new_recommender`)."""
        return candidate_recommender(candidate, seed, self.log, self.dim, self.training, joined=joined)

    def validation(self, recommender: Recommender) -> Examples:
        """Validation rows in the recommender's space, the same rows for every candidate and seed."""
        return validation_rows(recommender, self.log, self.fit.validation_rows)

    def candidate_training(
        self, recommender: Recommender, candidate: CandidateConfig, reduced: Examples, seed: int
    ) -> CandidateTraining:
        """The training of a candidate's dense part on reduced rows, with the tables that it has."""
        return CandidateTraining(
            recommender.dense,
            reduced.to(recommender.device),
            self.validation(recommender),
            candidate.apply_to(self.fit),
            seed,
        )


class CellResult(NamedTuple):
    """Scores and costs of a cell."""

    after: Scores  # test block, after the subsequent block
    before: Scores | None  # test block, before it; None for cold, which has learned nothing then
    validation: Scores  # validation block, after the subsequent block: what choices may be tuned on
    epochs: list[float]  # validation AUC after each epoch on reduced rows
    rehearsal_weight: float | None  # None where nothing was rehearsed
    rows_trained: int  # row visits, of reduced and of real rows
    seconds_history: float  # learning what stands in for history, its validation passes included
    seconds: float
    peak_bytes: int  # diet_ray.training.device.peak_bytes

    def flat(self) -> dict[str, Any]:
        """The cell's columns in results.parquet, besides its name."""
        row = {
            "auc": self.after.auc,
            "logloss": self.after.logloss,
            "auc_before": self.before.auc if self.before else None,
            "logloss_before": self.before.logloss if self.before else None,
            "auc_validation": self.validation.auc,
            "logloss_validation": self.validation.logloss,
            "rows_trained": self.rows_trained,
            "seconds_history": self.seconds_history,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "epochs": self.epochs,
            "rehearsal_weight": self.rehearsal_weight,
        }
        for task, score in self.after.tasks.items():
            row |= {f"auc_{task}": score.auc, f"logloss_{task}": score.logloss}
        return row


class _History(NamedTuple):
    """What a candidate learned in place of history."""

    rows_trained: int
    epochs: list[float]
    rehearsal: Rehearsal | None


def run_cell(
    method: Method,
    candidate: CandidateConfig,
    seed: int,
    setting: Setting,
    checkpoint: StoredCheckpoint | None = None,
    reduced: Examples | None = None,
) -> tuple[Recommender, CellResult]:
    """Train and score one cell.

    Args:
        method: what stands in for history.
        candidate: the architecture.
        seed: of initial weights and of the order of batches.
        setting: what all cells share; its rehearsal weight must have been chosen where rows are rehearsed.
        checkpoint: the newest of the reference, for every method but cold and full.
        reduced: the rows of a method in REDUCED.

    Returns:
        The trained recommender and the cell's result.

    Raises:
        ConfigError: where a method lacks its checkpoint, or the rehearsal weight is still "auto".
        DataError: where training diverges.
    """
    started = time.perf_counter()
    reset_peak()
    log = setting.log
    recommender = setting.recommender(candidate, seed, joined=method in WITHOUT_TABLES)
    if method not in WITHOUT_TABLES:
        if checkpoint is None:
            raise ConfigError(f"method {method} needs a committed checkpoint of the reference")
        restore_tables(recommender, checkpoint)
    learning = time.perf_counter()
    history = _learn_history(method, recommender, candidate, seed, setting, reduced)
    seconds_history = time.perf_counter() - learning
    before = None if method == "cold" else score_block(recommender, log, log.blocks["test"])
    subsequent, rehearsal = log.blocks["subsequent"], history.rehearsal
    learn_block(recommender, log, subsequent, setting.training, seed, rehearsal=rehearsal)
    result = CellResult(
        after=score_block(recommender, log, log.blocks["test"]),
        before=before,
        validation=score_block(recommender, log, log.blocks["validation"]),
        epochs=history.epochs,
        rehearsal_weight=rehearsal.weight if rehearsal and rehearsal.share else None,
        rows_trained=history.rows_trained + subsequent.rows + (rehearsal.rows_drawn if rehearsal else 0),
        seconds_history=seconds_history,
        seconds=time.perf_counter() - started,
        peak_bytes=peak_bytes(),
    )
    return recommender, result


def _learn_history(
    method: Method,
    recommender: Recommender,
    candidate: CandidateConfig,
    seed: int,
    setting: Setting,
    reduced: Examples | None,
) -> _History:
    """Learn what the method offers in place of history; nothing for cold and warmup."""
    log, fit = setting.log, setting.fit
    if method == "full":
        for block in log.history:
            learn_block(recommender, log, block, setting.training, seed)
        return _History(sum(block.rows for block in log.history), [], None)
    if method not in REDUCED:
        return _History(0, [], None)
    assert reduced is not None
    training = setting.candidate_training(recommender, candidate, reduced, seed)
    training.run()
    epochs = [score.auc for score in training.scores]
    weight = fit.chosen_weight if fit.rehearsal else 1.0
    rehearsal = Rehearsal(training.reduced, share=fit.rehearsal, weight=weight, seed=seed)
    return _History(len(epochs) * reduced.rows, epochs, rehearsal)

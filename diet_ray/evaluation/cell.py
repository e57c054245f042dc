"""One cell of the comparison: a method, a candidate architecture and a seed (paper, section 5).

The protocol: the dense part learns from what stands for history, the whole model then learns the subsequent
block for one epoch, rows that stand for history beside it, and the test block is scored once.
"""

import time
from typing import Any, Literal, NamedTuple, get_args

from diet_ray.config import CandidateConfig, FitConfig, TrainingConfig
from diet_ray.errors import ConfigError
from diet_ray.log.dataset import EncodedLog, PreparedLog
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.models.registry import build_model
from diet_ray.seeding import derived_seed, numpy_generator
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.checkpoint import restore_tables
from diet_ray.training.learning import Rehearsal, embedded, evaluate_block, learn_block, new_learner, sampled
from diet_ray.training.metrics import Scores
from diet_ray.training.peak_memory import forget_peak, peak_bytes
from diet_ray.training.recommender import Recommender

Method = Literal["cold", "warmup", "random", "kmeans", "el2n", "diet", "full"]
METHODS: tuple[Method, ...] = get_args(Method)
WITHOUT_TABLES = ("cold", "full")
REDUCED = ("random", "kmeans", "el2n", "diet")


class Setting(NamedTuple):
    """What all cells of a comparison share."""

    log: PreparedLog
    dim: int  # of an embedding
    training: TrainingConfig
    fit: FitConfig

    def learner(self, candidate: CandidateConfig, seed: int) -> Recommender:
        return candidate_learner(candidate, seed, self.log, self.dim, self.training)

    def validation(self, learner: Recommender) -> Examples:
        """Validation rows in the embedding space of `learner`, the same rows for every candidate and seed."""
        return validation_rows(learner, self.log, self.fit.validation_rows)

    def fitting(
        self, learner: Recommender, candidate: CandidateConfig, reduced: Examples, seed: int
    ) -> CandidateTraining:
        """The training of a candidate's dense part on reduced rows, under the tables that it has."""
        reduced, validation = reduced.to(learner.device), self.validation(learner)
        return CandidateTraining(learner.dense, reduced, validation, candidate.apply_to(self.fit), seed)


class CellResult(NamedTuple):
    after: Scores  # test, after the subsequent block
    before: Scores | None  # test, before it; None for cold, which knows nothing then
    validation: Scores  # validation, after the subsequent block: what choices may be tuned on
    epochs: list[float]  # validation AUC after each epoch on reduced data
    rehearsal_weight: float | None  # on the subsequent block; None: nothing to rehearse
    rows_trained: int  # row visits, of reduced and of real rows
    seconds_history: float  # learning what stands for history, its validation passes included
    seconds: float
    peak_bytes: int  # peak_memory.peak_bytes

    def flat(self) -> dict[str, Any]:
        """What a row of results.parquet says of the cell, besides its name."""
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


def run_cell(
    method: Method,
    candidate: CandidateConfig,
    seed: int,
    setting: Setting,
    checkpoint: bytes | None = None,
    reduced: Examples | None = None,
) -> tuple[Recommender, CellResult]:
    """Train and score one cell; return the trained recommender too.

    checkpoint: the newest of the reference, for every method but cold and full.
    reduced: the rows of random, kmeans, el2n or diet; they are rehearsed at the fit's `rehearsal_weight`,
        None: as heavy as the rows of the block.
    """
    started = time.perf_counter()
    forget_peak()
    log, fit = setting.log, setting.fit
    learner = setting.learner(candidate, seed)
    epochs: list[float] = []
    rows_trained = 0
    if method not in WITHOUT_TABLES:
        if checkpoint is None:
            raise ConfigError(f"method {method} needs a committed checkpoint of the reference")
        restore_tables(learner, checkpoint)
    del checkpoint  # as large as the tables; held to the end it would count in the peak
    learning = time.perf_counter()
    if method == "full":
        for block in log.history:
            learn_block(learner, log, block, setting.training, seed)
            rows_trained += block.rows
    rehearsal = None
    if method in REDUCED:
        assert reduced is not None
        fitting = setting.fitting(learner, candidate, reduced, seed)
        fitting.run()
        epochs = [score.auc for score in fitting.scores]
        rows_trained = len(epochs) * reduced.rows
        weight = fit.chosen_weight if fit.rehearsal else 1.0
        rehearsal = Rehearsal(fitting.reduced, fit.rehearsal, weight, seed)
    seconds_history = time.perf_counter() - learning
    test, subsequent = log.blocks["test"], log.blocks["subsequent"]
    before = None if method == "cold" else evaluate_block(learner, log, test)
    learn_block(learner, log, subsequent, setting.training, seed, rehearsal=rehearsal)
    after = evaluate_block(learner, log, test)
    scored = evaluate_block(learner, log, log.blocks["validation"])
    rows_trained += subsequent.rows + (rehearsal.rows_drawn if rehearsal else 0)
    rehearsed = rehearsal.weight if rehearsal and rehearsal.share else None
    seconds = time.perf_counter() - started
    costs = (rows_trained, seconds_history, seconds, peak_bytes())
    return learner, CellResult(after, before, scored, epochs, rehearsed, *costs)


def new_candidate(
    candidate: CandidateConfig, seed: int, *, fields: int, dim: int, tasks: int
) -> RankingModel:
    """A candidate with the initial weights of `seed`; ConfigError where it cannot be built."""
    own_seed = derived_seed(seed, "candidate", candidate.name)
    return build_model(candidate, fields=fields, dim=dim, tasks=tasks, seed=own_seed)


def candidate_learner(
    candidate: CandidateConfig, seed: int, log: EncodedLog, dim: int, training: TrainingConfig
) -> Recommender:
    """A candidate with empty tables, as every cell starts."""
    model = new_candidate(candidate, seed, fields=len(log.fields), dim=dim, tasks=len(log.tasks))
    return new_learner(model, log, dim, training, candidate.learning_rate)


def validation_rows(learner: Recommender, log: PreparedLog, rows: int) -> Examples:
    """A sample of the validation block, the same for every candidate and seed."""
    return embedded(learner, sampled(log, log.blocks["validation"], rows, numpy_generator(0, "validation")))

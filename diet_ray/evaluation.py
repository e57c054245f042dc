"""One cell of the comparison: a method, a candidate architecture and a seed (paper, section 5).

The protocol: the dense part learns from what stands for history, the whole model then learns the subsequent
block for one epoch, and the test block is scored once.
"""

import time
from typing import Any, Literal, NamedTuple, get_args

from diet_ray.candidate import fit_candidate
from diet_ray.checkpoint import restore_tables
from diet_ray.config import CandidateConfig, TrainingConfig
from diet_ray.errors import ConfigError
from diet_ray.examples import Examples
from diet_ray.learning import embedded, evaluate_block, learn_block, new_learner, sampled
from diet_ray.log.dataset import PreparedLog
from diet_ray.metrics import Scores
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.recommender import Recommender
from diet_ray.seeding import derived_seed, numpy_generator, torch_generator

Method = Literal["cold", "warmup", "random", "kmeans", "el2n", "diet", "full"]
METHODS: tuple[Method, ...] = get_args(Method)
WITHOUT_TABLES = ("cold", "full")
REDUCED = ("random", "kmeans", "el2n", "diet")


class CellResult(NamedTuple):
    method: str
    candidate: str
    seed: int
    after: Scores  # test, after the subsequent block
    before: Scores | None  # test, before it; None for cold, which knows nothing then
    validation: Scores  # validation, after the subsequent block: what choices may be tuned on
    epochs: list[float]  # validation AUC after each epoch on reduced data
    rows_trained: int  # row visits, of reduced and of real rows
    seconds: float

    def flat(self) -> dict[str, Any]:
        """One row of results.parquet."""
        row = {
            "method": self.method,
            "candidate": self.candidate,
            "seed": self.seed,
            "auc": self.after.auc,
            "logloss": self.after.logloss,
            "auc_before": self.before.auc if self.before else None,
            "logloss_before": self.before.logloss if self.before else None,
            "auc_validation": self.validation.auc,
            "logloss_validation": self.validation.logloss,
            "rows_trained": self.rows_trained,
            "seconds": self.seconds,
            "epochs": self.epochs,
        }
        for task, score in self.after.tasks.items():
            row |= {f"auc_{task}": score.auc, f"logloss_{task}": score.logloss}
        return row


def run_cell(
    method: Method,
    candidate: ModelConfig,
    seed: int,
    *,
    log: PreparedLog,
    width: int,
    training: TrainingConfig,
    config: CandidateConfig,
    checkpoint: bytes | None = None,
    reduced: Examples | None = None,
) -> CellResult:
    """Train and score one cell.

    checkpoint: the newest of the reference, for every method but cold and full.
    reduced: the rows of random, kmeans, el2n or diet.
    """
    started = time.perf_counter()
    model_seed = derived_seed(seed, "candidate", candidate.name)
    model = build_model(candidate, fields=len(log.fields), width=width, tasks=len(log.tasks), seed=model_seed)
    learner = new_learner(model, log, width, training)
    epochs: list[float] = []
    rows_trained = 0
    if method not in WITHOUT_TABLES:
        if checkpoint is None:
            raise ConfigError(f"method {method} needs a committed checkpoint of the reference")
        restore_tables(learner, checkpoint)
    if method == "full":
        for block in log.history:
            learn_block(learner, log, block, training, seed)
            rows_trained += block.rows
    if method in REDUCED:
        assert reduced is not None
        fitted = fit_candidate(
            learner.dense,
            reduced.to(learner.device),
            _validation(learner, log, config.validation_rows),
            config,
            torch_generator(seed, "candidate", "batches"),
        )
        epochs, rows_trained = [score.auc for score in fitted.epochs], fitted.rows_trained
    test, subsequent = log.blocks["test"], log.blocks["subsequent"]
    before = None if method == "cold" else evaluate_block(learner, log, test)
    learn_block(learner, log, subsequent, training, seed)
    after = evaluate_block(learner, log, test)
    validation = evaluate_block(learner, log, log.blocks["validation"])
    rows_trained += subsequent.rows
    seconds = time.perf_counter() - started
    return CellResult(method, candidate.name, seed, after, before, validation, epochs, rows_trained, seconds)


def _validation(learner: Recommender, log: PreparedLog, rows: int) -> Examples:
    """The same rows for every candidate and seed."""
    return embedded(learner, sampled(log, log.blocks["validation"], rows, numpy_generator(0, "validation")))

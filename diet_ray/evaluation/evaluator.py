"""Cells, rehearsal weights and trajectories of a finished run.

Whatever several cells share is computed once and kept in the run directory: the rows that a baseline
selects, EL2N scores, the weight of the rehearsal.
"""

from typing import Any

import torch

from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.distillation.baselines import el2n_rows, kmeans_rows, random_rows
from diet_ray.distillation.memory import Memory, to_arrow
from diet_ray.distillation.memory_update import memory_rows, memory_schema
from diet_ray.distillation.scored_rows import EmbeddedRows, LocalScorer, PartScorer
from diet_ray.errors import RunError
from diet_ray.evaluation.cell import CellResult, Setting, run_cell
from diet_ray.evaluation.judges.cost import FullCost, full_rows
from diet_ray.evaluation.judges.prequential import JudgeSetting
from diet_ray.evaluation.methods import REDUCED, WITHOUT_TABLES, Method
from diet_ray.evaluation.rehearsal_weight import SEED, rehearsal_scores
from diet_ray.evaluation.trajectory import Point, full_trajectory, reduced_trajectory
from diet_ray.evaluation.trial import TrialData
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples
from diet_ray.runs.run import Run
from diet_ray.runs.state import RunState
from diet_ray.seeding import derived_seed
from diet_ray.storage import Folder
from diet_ray.stored_config import upgrade_fit
from diet_ray.training.candidate_setup import validation_rows
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.recommender import Recommender
from diet_ray.version import __version__


class Evaluator:
    """Trains and scores candidates on a run that has distilled all its blocks."""

    def __init__(self, state: RunState, run: str) -> None:
        """run: URL of the run, for provenance."""
        if not isinstance(state.log, PreparedLog):
            raise RunError(f"{run} is a stream: it has no validation and test block to evaluate on")
        self.log: PreparedLog = state.log
        self.state, self.url = state, run
        self.folder, self.config = state.folder, state.config

    def run_cell(
        self, method: Method, candidate: CandidateConfig, seed: int, fit: FitConfig
    ) -> tuple[Recommender, CellResult]:
        """Train and score one cell; a rehearsal weight that is "auto" is chosen first."""
        if method in WITHOUT_TABLES:
            return run_cell(method, candidate, seed, self._setting(fit))
        if method not in REDUCED:
            return run_cell(method, candidate, seed, self._setting(fit), self._newest_checkpoint())
        setting = self._setting(self.with_weight(method, fit))
        reduced = self.reduced_rows(method, seed)
        return run_cell(method, candidate, seed, setting, self._newest_checkpoint(), reduced)

    def trajectory(
        self, method: Method, candidate: CandidateConfig, seed: int, fit: FitConfig
    ) -> list[Point]:
        """Validation AUC along the training of `full`, or of a method with reduced rows."""
        setting = self._setting(fit)
        if method == "full":
            return full_trajectory(candidate, seed, setting)
        reduced = self.reduced_rows(method, seed)
        return reduced_trajectory(candidate, seed, setting, self._newest_checkpoint(), reduced)

    def with_weight(self, method: Method, fit: FitConfig) -> FitConfig:
        """The fit with a rehearsal weight: the method's best, chosen once per run and kept there."""
        if not fit.weight_is_open:
            return fit
        path, settings = layout.rehearsal_weight(method), fit.model_dump(mode="json")
        choice = self.folder.read_json(path) if self.folder.exists(path) else {"fit": {}}
        if upgrade_fit(choice["fit"]) != settings:
            rows = self.reduced_rows(method, SEED)
            scores = rehearsal_scores(rows, self._newest_checkpoint(), self._setting(fit))
            choice = {
                "fit": settings,
                "weight": max(scores, key=lambda weight: scores[weight]),
                "validation_auc": {str(weight): auc for weight, auc in scores.items()},
            }
            self.folder.write_json(path, choice)
        return fit.model_copy(update={"rehearsal_weight": choice["weight"]})

    def reduced_rows(self, method: Method, seed: int) -> Examples:
        """The memory, or as many rows by a baseline, with the teacher's soft labels.

        `newest` draws all of them at random from the newest block: the control for everything that a memory
        does beyond that. The other baselines draw from each block.
        """
        if method == "diet":
            return self.state.stored_rows(layout.memory(len(self.log.history))).examples()
        # A seed varies every choice but that of EL2N, which is not random.
        path = layout.baseline_rows(method, None if method == "el2n" else seed)
        if self.folder.exists(path):
            return self.state.stored_rows(path).examples()
        stages = len(self.log.history)
        chosen = range(stages, stages + 1) if method == "newest" else range(1, stages + 1)
        parts = [self._selected(method, stage, seed) for stage in chosen]
        rows = Memory(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        table = to_arrow(rows, memory_schema(self.log, self.config), reference=method)
        self.folder.write_parquet(path, table)
        return rows.examples()

    def trial_data(self, rows: int) -> TrialData:
        """The newest memory, and `rows` validation rows under the tables of the newest checkpoint."""
        newest = self.state.checkpoint(len(self.log.history))
        return TrialData(self.reduced_rows("diet", 0), validation_rows(newest, self.log, rows))

    def judge_setting(self, *, with_reference: bool) -> JudgeSetting:
        """What judges of candidates share; the newest checkpoint only where one of them needs it."""
        checkpoint = self._newest_checkpoint() if with_reference else None
        return JudgeSetting(self.log, self.config.dim, self.config.training, checkpoint)

    def full_cost(self, memory_rows: int) -> FullCost:
        """Rows by which the cost of judging is counted."""
        return FullCost(full_rows(self.log), memory_rows)

    def provenance(self) -> dict[str, Any]:
        """Log, run and files behind a model that was trained on the newest memory."""
        run = Run.read(self.url)
        newest = run.records[-1]
        return {
            "log": self.log.name,
            "log_fingerprint": self.log.fingerprint,
            "run": self.url,
            "config_sha256": run.config_sha256,
            "stage": run.stage,
            "memory_sha256": newest.memory_stamp().sha256,
            "reference_sha256": newest.checkpoint_stamp().sha256,
            "diet_ray_version": __version__,
        }

    def _selected(self, method: Method, stage: int, seed: int) -> Memory:
        """Rows that a baseline selects from one block."""
        block = self.log.block(stage)
        cache = Folder.at(f"{self.url}/{layout.scores(stage)}")
        scorer = LocalScorer(PartScorer(self.state.checkpoint(stage), self.log, block, cache))
        history = self.log.history if method == "newest" else [block]
        rows = memory_rows(self.config, sum(each.rows for each in history))
        draw_seed = derived_seed(seed, method, stage)
        if method == "el2n":
            chosen = el2n_rows(scorer, rows, self.config.method.boundary.quantile)
        elif method == "kmeans":
            chosen = kmeans_rows(scorer, rows, draw_seed)
        else:
            chosen = random_rows(scorer, rows, draw_seed)
        return EmbeddedRows.joined(scorer.embed(chosen)).as_memory(stage)

    def _setting(self, fit: FitConfig) -> Setting:
        return Setting(self.log, self.config.dim, self.config.training, fit)

    def _newest_checkpoint(self) -> StoredCheckpoint:
        return self.state.stored_checkpoint(len(self.log.history))

"""Cells of the comparison as Ray tasks of one thread each."""

from typing import Any

import numpy as np
import ray
import torch

from actors.worker import RunWorker, checkpoint_path, memory_path, scores_path
from diet_ray import __version__
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.distillation.memory import Memory, from_arrow, to_arrow
from diet_ray.distillation.selection import LocalScorer, PartScorer, el2n_rows, kmeans_rows, random_rows
from diet_ray.distillation.stage import budget, memory_schema
from diet_ray.evaluation.cell import REDUCED, WITHOUT_TABLES, CellResult, Method, Setting, run_cell
from diet_ray.evaluation.export import write_model
from diet_ray.evaluation.rehearsal import SEED, rehearsal_scores
from diet_ray.evaluation.trajectory import Point, full_trajectory, reduced_trajectory
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples
from diet_ray.runs.run import Run
from diet_ray.seeding import numpy_generator
from diet_ray.storage import Folder
from diet_ray.training.recommender import Recommender


class CellWorker(RunWorker):
    """Builds what a method puts in place of history, from the committed stages of a run."""

    log: PreparedLog

    def run(
        self, method: Method, candidate: dict[str, Any], seed: int, fit: dict[str, Any]
    ) -> tuple[Recommender, CellResult]:
        own, setting = CandidateConfig.model_validate(candidate), self._setting(fit)
        if method in WITHOUT_TABLES:
            return run_cell(method, own, seed, setting)
        # The checkpoint gets no name here, so that the cell can let go of it.
        if method not in REDUCED:
            return run_cell(method, own, seed, setting, self._newest_checkpoint())
        setting = setting._replace(fit=self.rehearsing(method, fit))
        reduced = self.reduced(method, seed)
        return run_cell(method, own, seed, setting, self._newest_checkpoint(), reduced)

    def trajectory(
        self, method: Method, candidate: dict[str, Any], seed: int, fit: dict[str, Any]
    ) -> list[Point]:
        """Validation AUC along the training of `full`, or of a method with reduced rows."""
        own, setting = CandidateConfig.model_validate(candidate), self._setting(fit)
        if method == "full":
            return full_trajectory(own, seed, setting)
        reduced = self.reduced(method, seed)
        return reduced_trajectory(own, seed, setting, self._newest_checkpoint(), reduced)

    def rehearsing(self, method: Method, asked: dict[str, Any]) -> FitConfig:
        """The fit with a weight of the rehearsal: the method's best, found once per run and kept there."""
        fit = FitConfig.model_validate(asked)
        if not fit.weight_is_open:
            return fit
        path = f"evaluation/rehearsal/{method}.json"
        found = self.folder.read_json(path) if self.folder.exists(path) else {}
        if found.get("fit") != asked:
            rows = self.reduced(method, SEED)
            scores = rehearsal_scores(rows, self._newest_checkpoint(), self._setting(asked))
            best = max(scores, key=lambda weight: scores[weight])
            found = {
                "fit": asked,
                "weight": best,
                "validation_auc": {str(w): auc for w, auc in scores.items()},
            }
            self.folder.write_json(path, found)
        return fit.model_copy(update={"rehearsal_weight": found["weight"]})

    def _setting(self, fit: dict[str, Any]) -> Setting:
        return Setting(self.log, self.config.dim, self.config.training, FitConfig.model_validate(fit))

    def _newest_checkpoint(self) -> bytes:
        return self.folder.read(checkpoint_path(len(self.log.history)))

    def reduced(self, method: Method, seed: int) -> Examples:
        """The memory, or the same number of rows of each block by a baseline with the same soft labels."""
        if method == "diet":
            path = memory_path(len(self.log.history))
            return self._stored(path).examples()
        # The choice of random and k-means rows is part of what a seed varies; EL2N's is not random.
        path = f"evaluation/selected/{method}{'' if method == 'el2n' else f'-{seed}'}.parquet"
        if self.folder.exists(path):
            return self._stored(path).examples()
        parts = [self._selected(method, stage, seed) for stage in range(1, len(self.log.history) + 1)]
        memory = Memory(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        table = to_arrow(memory, memory_schema(self.log, self.config), reference=method)
        self.folder.write_parquet(path, table)
        return memory.examples()

    def provenance(self) -> dict[str, Any]:
        """What a model trained on the newest memory goes back to."""
        run = Run.read(self.url)
        sums = {stamp.path: stamp.sha256 for stamp in run.records[-1].files}
        return {
            "log": self.log.name,
            "log_fingerprint": self.log.fingerprint,
            "run": self.url,
            "config_sha256": run.config_hash,
            "stage": run.stage,
            "memory_sha256": sums[memory_path(run.stage)],
            "reference_sha256": sums[checkpoint_path(run.stage)],
            "diet_ray_version": __version__,
        }

    def _selected(self, method: Method, stage: int, seed: int) -> Memory:
        block, kept = self.log.block(stage), Folder.at(scores_path(self.url, stage))
        scorer = LocalScorer(PartScorer(self.checkpoint(stage), self.log, block, kept))
        rows, draw = budget(self.config, block.rows), numpy_generator(seed, method, stage)
        chosen: np.ndarray
        if method == "el2n":
            chosen = el2n_rows(scorer, rows, self.config.method.boundary.quantile)
        elif method == "kmeans":
            chosen = kmeans_rows(scorer, rows, draw)
        else:
            chosen = random_rows(scorer, rows, draw)
        return scorer.collect(chosen).as_memory(stage)

    def _stored(self, path: str) -> Memory:
        return from_arrow(self.folder.read_parquet(path), memory_schema(self.log, self.config))


@ray.remote(num_cpus=1, max_retries=2)
def train_candidate(
    data: str,
    run: str,
    config: dict[str, Any],
    candidate: dict[str, Any],
    seed: int,
    fit: dict[str, Any],
    out: str,
) -> None:
    """Train a candidate on the memory and the subsequent block and write it to `out`."""
    worker = CellWorker(data, run, config, threads=1)
    learner, result = worker.run("diet", candidate, seed, fit)
    known = {"seed": seed, "fit": fit, **worker.provenance()}
    write_model(Folder.at(out), learner, CandidateConfig.model_validate(candidate), worker.log, result, known)


@ray.remote(num_cpus=1, max_retries=2)
def find_rehearsal(data: str, run: str, config: dict[str, Any], method: Method, fit: dict[str, Any]) -> float:
    """The weight of a method's rehearsal, looked for once where the fit leaves it open."""
    return CellWorker(data, run, config, threads=1).rehearsing(method, fit).chosen_weight


@ray.remote(num_cpus=1, max_retries=2)
def trace_cell(
    data: str,
    run: str,
    config: dict[str, Any],
    method: Method,
    candidate: dict[str, Any],
    seed: int,
    fit: dict[str, Any],
) -> list[Point]:
    """The trajectory of a cell, in one thread."""
    return CellWorker(data, run, config, threads=1).trajectory(method, candidate, seed, fit)


@ray.remote(num_cpus=1, max_retries=2)
def evaluate_cell(
    data: str,
    run: str,
    config: dict[str, Any],
    method: Method,
    candidate: dict[str, Any],
    seed: int,
    fit: dict[str, Any],
) -> CellResult:
    """Train and score one cell in one thread: two processes with two threads each on two cores crawl."""
    return CellWorker(data, run, config, threads=1).run(method, candidate, seed, fit)[1]

"""What a study works with: a finished run, its cells, and runs that differ from it in a setting."""

import json

import pandas as pd
import ray

from actors.cells import trace_cell
from actors.connection import connect, user_errors
from actors.placement import ResourceConfig, cluster_nodes, task_claim
from actors.tasks import as_finished
from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig, RunConfig
from diet_ray.evaluation.methods import Method
from diet_ray.runs.reference_reuse import REFERENCE_KEYS
from diet_ray.runs.run import Run
from pipelines.distill import distill
from pipelines.runtime.command import keeping
from pipelines.runtime.comparison import Cell, EvaluatedRun, finished_cells, run_cells
from pipelines.runtime.progress import bars, console

Candidates = dict[str, CandidateConfig]


class StudyContext:
    """A finished run and what its studies share.

    Args:
        evaluated: the run.
        candidates: of every study that does not draw its own.
        seeds: number of seeds per cell.
        fit: how candidates are trained.
    """

    def __init__(self, evaluated: EvaluatedRun, candidates: Candidates, seeds: int, fit: FitConfig) -> None:
        self.evaluated, self.candidates, self.seeds, self.fit = evaluated, candidates, seeds, fit
        self.config = evaluated.config
        self.run = Run.read(evaluated.url)

    def cells(self, methods: tuple[Method, ...], candidates: Candidates) -> pd.DataFrame:
        """Cells of the run itself."""
        return self._cells(self.evaluated.url, methods, candidates)

    def variants(
        self, configs: dict[str, RunConfig], methods: tuple[Method, ...], candidates: Candidates
    ) -> pd.DataFrame:
        """Cells of runs that differ in their config, with a column `variant`; the run itself may be one.

        Runs with the same reference share the checkpoints of the first of them.
        """
        tables, with_reference = [], {_reference_key(self.config): self.evaluated.url}
        for name, config in configs.items():
            own = config == self.config
            url = self.evaluated.url if own else self._distilled(name, config, with_reference)
            with_reference.setdefault(_reference_key(config), url)
            tables.append(self._cells(url, methods, candidates).assign(variant=name))
        return pd.concat(tables, ignore_index=True)

    def _cells(self, url: str, methods: tuple[Method, ...], candidates: Candidates) -> pd.DataFrame:
        return run_cells(self.evaluated.data, url, methods, candidates, self.seeds, self.fit)

    def _distilled(self, name: str, config: RunConfig, with_reference: dict[str, str]) -> str:
        """The run of a variant; it reuses a reference, and the scores of its blocks, where there is one."""
        url = f"{self.evaluated.url}/{layout.study_run(name)}"
        source = with_reference.get(_reference_key(config))
        console.print(f"variant {name}: {url}")
        distill(self.evaluated.data, url, config, ResourceConfig(), source, score_cache=source)
        return url

    def trajectories(self, methods: tuple[Method, ...], candidates: Candidates) -> pd.DataFrame:
        """Columns method, candidate, seed, steps, seconds, auc; one row per point of a curve."""
        folder = self.run.folder
        cells = [Cell(m, c, s) for s in range(self.seeds) for c in candidates for m in methods]
        curves = {layout.trajectory(cell.method, cell.candidate, cell.seed): cell for cell in cells}
        connect()
        task = trace_cell.options(num_gpus=task_claim(cluster_nodes()).gpus)
        arguments = self.evaluated.task_arguments()
        running = {
            task.remote(*arguments, c.method, candidates[c.candidate], c.seed, self.fit): path
            for path, c in curves.items()
            if not folder.exists(path)
        }
        with (
            keeping(finished_cells),
            bars() as shown,
            shown.bar("trajectories", len(running), "cells") as bar,
        ):
            for path, done in as_finished(running):
                with user_errors():
                    folder.write_json(path, [point._asdict() for point in ray.get(done)])
                bar.advance(1)
        points = [(cell, point) for path, cell in curves.items() for point in folder.read_json(path)]
        return pd.DataFrame([{**cell._asdict(), **point} for cell, point in points])


def _reference_key(config: RunConfig) -> str:
    """What the reference depends on, besides the log."""
    return json.dumps([config.model_dump(mode="json").get(key) for key in REFERENCE_KEYS])

"""What a study works with: a finished run, cells evaluated in it, runs that differ from it in a setting."""

import json
import re

import pandas as pd
import ray

from actors.cells import trace_cell
from actors.cluster import ResourceConfig, as_finished, gpu_share
from actors.connection import connect, user_errors
from diet_ray.config import CandidateConfig, FitConfig, RunConfig
from diet_ray.evaluation.cell import Method
from diet_ray.runs.run import Run
from pipelines.distill import distill
from pipelines.evaluate import run_cells
from pipelines.runtime.progress import bars, console
from pipelines.runtime.reference_reuse import KEYS

Candidates = dict[str, CandidateConfig]


class StudyContext:
    def __init__(
        self, data: str, url: str, config: RunConfig, candidates: Candidates, seeds: int, fit: FitConfig
    ) -> None:
        """candidates: of every study that does not draw its own."""
        self.data, self.url, self.config, self.seeds, self.fit = data, url, config, seeds, fit
        self.candidates = candidates
        self.run = Run.read(url)

    def cells(self, methods: tuple[Method, ...], candidates: Candidates) -> pd.DataFrame:
        return run_cells(self.data, self.url, methods, candidates, self.seeds, self.fit)

    def variants(
        self, configs: dict[str, RunConfig], methods: tuple[Method, ...], candidates: Candidates
    ) -> pd.DataFrame:
        """Cells of runs that differ in their config, with a column `variant`; the run itself may be one.

        Of runs with the same reference the first lends it to the others.
        """
        found, lenders = [], {_of_reference(self.config): self.url}
        for name, config in configs.items():
            url = self.url if config == self.config else self._distilled(name, config, lenders)
            lenders.setdefault(_of_reference(config), url)
            cells = run_cells(self.data, url, methods, candidates, self.seeds, self.fit)
            found.append(cells.assign(variant=name))
        return pd.concat(found, ignore_index=True)

    def _distilled(self, name: str, config: RunConfig, lenders: dict[str, str]) -> str:
        """The run of a variant; it borrows the reference, and scores of blocks, from one that has it."""
        url = f"{self.url}/studies/runs/{re.sub('[^a-z0-9.]+', '-', name.lower())}"
        lender = lenders.get(_of_reference(config))
        console.print(f"variant {name}: {url}")
        distill(self.data, url, config, ResourceConfig(), lender, scores=lender)
        return url

    def trajectories(self, methods: tuple[Method, ...], candidates: Candidates) -> pd.DataFrame:
        """Columns method, candidate, seed, steps, seconds, auc; one row per point of a curve."""
        folder, config, fit = self.run.folder, self.config.model_dump(mode="json"), self.fit.model_dump()
        wanted = {
            f"studies/trajectories/{method}-{called}-{seed}.json": (method, called, seed)
            for seed in range(self.seeds)
            for called in candidates
            for method in methods
        }
        task = trace_cell.options(num_gpus=gpu_share(connect()))
        running = {
            task.remote(
                self.data, self.url, config, method, candidates[called].model_dump(mode="json"), seed, fit
            ): path
            for path, (method, called, seed) in wanted.items()
            if not folder.exists(path)
        }
        with bars() as shown, shown.bar("trajectories", len(running), "cells") as bar:
            for path, done in as_finished(running):
                with user_errors():
                    folder.write_json(path, [point._asdict() for point in ray.get(done)])
                bar.advance(1)
        rows = []
        for path, (method, called, seed) in wanted.items():
            name = {"method": method, "candidate": called, "seed": seed}
            rows += [{**name, **point} for point in folder.read_json(path)]
        return pd.DataFrame(rows)


def _of_reference(config: RunConfig) -> str:
    """What the reference depends on besides the log."""
    return json.dumps([config.model_dump(mode="json").get(key) for key in KEYS])

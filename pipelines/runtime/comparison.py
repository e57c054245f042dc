"""Runs the missing cells of a comparison over the cluster; one JSON file per finished cell."""

from typing import Any, NamedTuple

import pandas as pd
import ray

from actors.cells import choose_rehearsal_weight, evaluate_cell
from actors.connection import connect, user_errors
from actors.placement import cluster_nodes, task_claim
from actors.tasks import as_finished
from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig, RunConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.methods import METHODS, REDUCED, Method
from diet_ray.log.dataset import PreparedLog
from diet_ray.runs.run import Run
from diet_ray.storage import Folder, absolute
from diet_ray.stored_config import upgrade_fit
from diet_ray.training.candidate_setup import new_candidate
from pipelines.runtime.progress import bars, console
from pipelines.runtime.run_access import complete_run

SCORE_COLUMNS = ("auc", "logloss", "rehearsal_weight")


class Cell(NamedTuple):
    """One row of the comparison."""

    method: Method
    candidate: str
    seed: int

    @property
    def path(self) -> str:
        return layout.cell(self.method, self.candidate, self.seed)


class EvaluatedRun(NamedTuple):
    """A finished run and the log it was distilled from."""

    data: str
    url: str
    config: RunConfig
    log: PreparedLog

    @classmethod
    def open(cls, data: str, run: str) -> "EvaluatedRun":
        """RunError where the run is not complete."""
        data, url = absolute(data), absolute(run)
        log = PreparedLog.open(data)
        return cls(data, url, complete_run(url, log), log)

    @property
    def folder(self) -> Folder:
        return Folder.at(self.url)

    def task_arguments(self) -> tuple[str, str, dict[str, Any]]:
        """What every task of actors.cells takes first."""
        return self.data, self.url, self.config.model_dump(mode="json")


def run_cells(
    data: str,
    run: str,
    methods: tuple[Method, ...],
    candidates: dict[str, CandidateConfig],
    seeds: int,
    fit: FitConfig,
) -> pd.DataFrame:
    """Run the missing cells; return one row for each cell that was requested.

    Raises:
        RunError: where the run is not complete, or its cells were trained with different settings.
        ConfigError: where a candidate cannot be built.
    """
    evaluated = EvaluatedRun.open(data, run)
    _check_settings(evaluated, candidates, fit)
    cells = [Cell(m, c, s) for s in range(seeds) for c in candidates for m in methods]
    missing = [cell for cell in cells if not evaluated.folder.exists(cell.path)]
    if missing:
        connect()
        _run_missing(missing, candidates, evaluated, fit)
    return _table(evaluated.folder, [evaluated.folder.read_json(cell.path) for cell in cells])


def stored_cells(folder: Folder) -> pd.DataFrame:
    """One row for each finished cell of a run, by seed, candidate and method."""
    paths = folder.fs.glob(f"{folder.root}/{layout.CELLS}/*.json")
    names = [path.rsplit("/", 1)[-1] for path in sorted(paths)]
    cells = _table(folder, [folder.read_json(f"{layout.CELLS}/{name}") for name in names])
    order = {method: number for number, method in enumerate(METHODS)}
    return cells.sort_values(
        ["seed", "candidate", "method"],
        key=lambda column: column.map(order) if column.name == "method" else column,
        ignore_index=True,
    )


def _table(folder: Folder, cells: list[dict[str, Any]]) -> pd.DataFrame:
    """A row per cell; a score that JSON holds as null, for want of a class, is NaN.

    in_reference: the candidate's architecture is one of the reference's, whose tables it inherits.
    """
    table = pd.DataFrame(cells)
    reference = Run(folder, folder.read(layout.CONFIG)).run_config.reference
    members = {reference.name, *reference.ensemble}
    architecture = {name: _architecture(folder, name) for name in table["candidate"].unique()}
    table["in_reference"] = [architecture[name] in members for name in table["candidate"]]
    scores = [name for name in table.columns if name.startswith(SCORE_COLUMNS)]
    table[scores] = table[scores].apply(pd.to_numeric)
    return table


def _architecture(folder: Folder, candidate: str) -> str:
    path = layout.evaluated_candidate(candidate)
    return str(folder.read_json(path)["name"]) if folder.exists(path) else candidate


def _check_settings(evaluated: EvaluatedRun, candidates: dict[str, CandidateConfig], fit: FitConfig) -> None:
    """Cells of one directory are comparable only where they were trained alike."""
    folder, log = evaluated.folder, evaluated.log
    for name, candidate in candidates.items():
        shape = {"fields": len(log.fields), "dim": evaluated.config.dim, "tasks": len(log.tasks)}
        new_candidate(candidate, 0, **shape)
        path, settings = layout.evaluated_candidate(name), candidate.model_dump(mode="json")
        if not folder.exists(path):
            folder.write_json(path, settings)
        elif folder.read_json(path) != settings:
            raise _different(folder / path)
    path = layout.EVALUATION_SETTINGS
    own = {"candidate": fit.model_dump(mode="json"), "fingerprint": log.fingerprint}
    if not folder.exists(path):
        folder.write_json(path, own)
        return
    stored = folder.read_json(path)
    if {**stored, "candidate": upgrade_fit(stored["candidate"])} != own:
        raise _different(folder / path)


def _different(path: str) -> RunError:
    return RunError(
        f"{path} holds different settings than this command; move the run's evaluation folder away first"
    )


def _run_missing(
    missing: list[Cell],
    candidates: dict[str, CandidateConfig],
    evaluated: EvaluatedRun,
    fit: FitConfig,
) -> None:
    gpus = task_claim(cluster_nodes()).gpus
    if fit.weight_is_open:
        _choose_weights([cell.method for cell in missing], evaluated, fit, gpus)
    task, arguments = evaluate_cell.options(num_gpus=gpus), evaluated.task_arguments()
    running = {
        task.remote(*arguments, cell.method, candidates[cell.candidate], cell.seed, fit): cell
        for cell in missing
    }
    with bars() as shown, shown.bar("cells", len(missing), "cells") as bar:
        for cell, done in as_finished(running):
            with user_errors():
                result = ray.get(done)
            evaluated.folder.write_json(cell.path, {**cell._asdict(), **result.flat()})
            bar.advance(1)
            console.print(
                f"{cell.method} {cell.candidate} seed {cell.seed}: AUC {result.after.auc:.4f}, "
                f"LogLoss {result.after.logloss:.4f}, {result.seconds:.0f} s"
            )


def _choose_weights(methods: list[Method], evaluated: EvaluatedRun, fit: FitConfig, gpus: float) -> None:
    """Choose the rehearsal weights before the cells start, lest each cell do it again."""
    task, arguments = choose_rehearsal_weight.options(num_gpus=gpus), evaluated.task_arguments()
    rehearsed = [method for method in dict.fromkeys(methods) if method in REDUCED]
    running = {task.remote(*arguments, method, fit): method for method in rehearsed}
    with bars() as shown, shown.bar("rehearsal weights", len(running), "methods") as bar:
        for method, done in as_finished(running):
            with user_errors():
                weight = ray.get(done)
            bar.advance(1)
            console.print(f"{method}: rehearsal weight {weight:g} (relative to the block)")

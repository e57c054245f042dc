"""Compare what candidates learn from the memory with what they learn from all history.

    python -m pipelines.evaluate --run runs/globo --methods warmup random diet full --seeds 3

One file per finished cell: started again, only missing cells run.
"""

import io
import json
from typing import Any, NamedTuple

import pandas as pd
import ray
import yaml
from rich.table import Table

from actors.cluster import connect
from actors.evaluating import evaluate_cell
from diet_ray.config import CandidateConfig, RunConfig
from diet_ray.errors import RunError
from diet_ray.evaluation import METHODS, Method
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.registry import ModelConfig
from diet_ray.run import Run
from diet_ray.storage import Folder
from pipelines.progress import bars, console


class Cell(NamedTuple):
    method: Method
    candidate: str
    seed: int

    @property
    def path(self) -> str:
        return f"evaluation/cells/{self.method}-{self.candidate.replace(':', '.')}-{self.seed}.json"


def evaluate(
    data: str,
    run: str,
    methods: tuple[Method, ...],
    candidates: tuple[str, ...],
    seeds: int,
    fit: CandidateConfig,
) -> pd.DataFrame:
    """Run the missing cells, write RUN/evaluation/results.parquet and .json, return all results asked for."""
    log, folder = PreparedLog.open(data), Folder.at(run)
    config = complete_run(run, log)
    _check_settings(folder, {"candidate": fit.model_dump(), "fingerprint": log.fingerprint})
    cells = [Cell(m, c, s) for s in range(seeds) for c in candidates for m in methods]
    missing = [cell for cell in cells if not folder.exists(cell.path)]
    if missing:
        connect()
        _run(missing, folder, data, run, config, fit)
    results = pd.DataFrame([folder.read_json(cell.path) for cell in cells])
    buffer = io.BytesIO()
    results.to_parquet(buffer, index=False)
    folder.write("evaluation/results.parquet", buffer.getvalue())
    folder.write_json("evaluation/results.json", json.loads(results.to_json(orient="records")))
    return results


def complete_run(run: str, log: PreparedLog) -> RunConfig:
    """The config of a run that has distilled all of `log`; RunError where it has not."""
    folder = Folder.at(run)
    if not folder.exists("config.yaml"):
        raise RunError(f"{run} is not a run: it has no config.yaml; run `diet-ray distill` first")
    stored = yaml.safe_load(folder.read("config.yaml"))
    opened = Run.open(run, stored)
    if stored["fingerprint"] != log.fingerprint:
        raise RunError(f"{run} was distilled from another preparation of the log than the one given")
    if opened.stage < len(log.history):
        raise RunError(
            f"{run} has {opened.stage} of {len(log.history)} stages; go on with `diet-ray distill`"
        )
    own = {key: value for key, value in stored.items() if key not in ("log", "fingerprint", "data")}
    return RunConfig.model_validate(own)


def _check_settings(folder: Folder, settings: dict[str, Any]) -> None:
    """Cells of one directory are comparable only where they were trained alike."""
    path = "evaluation/settings.json"
    if not folder.exists(path):
        folder.write_json(path, settings)
    elif folder.read_json(path) != settings:
        raise RunError(f"{folder / path} differs from what is asked; move the evaluation folder away first")


def _run(
    missing: list[Cell], folder: Folder, data: str, run: str, config: RunConfig, fit: CandidateConfig
) -> None:
    plain = (data, run, config.model_dump(mode="json"))
    running = {
        evaluate_cell.remote(
            *plain, c.method, ModelConfig(name=c.candidate).model_dump(), c.seed, fit.model_dump()
        ): c
        for c in missing
    }
    with bars() as shown, shown.bar("cells", len(missing), "cells") as bar:
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            cell, result = running.pop(done[0]), ray.get(done[0])
            folder.write_json(cell.path, result.flat())
            bar.advance(1)
            console.print(
                f"{cell.method} {cell.candidate} seed {cell.seed}: AUC {result.after.auc:.4f}, "
                f"LogLoss {result.after.logloss:.4f}, {result.seconds:.0f} s"
            )


def table(results: pd.DataFrame) -> Table:
    """Test AUC / LogLoss, mean ± standard deviation over seeds; the last column means over candidates."""
    shown = Table("method", *results["candidate"].unique(), "mean")
    for method in [m for m in METHODS if m in set(results["method"])]:
        mine = results[results["method"] == method]
        cells = [_told(mine[mine["candidate"] == c]) for c in results["candidate"].unique()]
        by_seed = mine.groupby("seed")[["auc", "logloss"]].mean()
        shown.add_row(method, *cells, _told(by_seed))
    return shown


def _told(rows: pd.DataFrame) -> str:
    spread = rows[["auc", "logloss"]].std().fillna(0)
    return (
        f"{rows['auc'].mean():.4f}±{spread['auc']:.4f} / {rows['logloss'].mean():.4f}±{spread['logloss']:.4f}"
    )

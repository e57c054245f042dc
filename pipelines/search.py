"""Search for an architecture on the memory of a run: a sweep of cheap trials, the best few confirmed.

A trial trains a candidate's dense part on the memory, in embedding space. The best are then trained as
`evaluate` trains a candidate, with the tables of the reference and the subsequent block, and scored on the
test block.
"""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import pandas as pd
import ray
import tyro
import yaml
from rich.console import Console
from rich.table import Table

from actors.cells import evaluate_cell
from actors.cluster import as_finished, gpu_share
from actors.connection import connect, user_errors
from actors.trials import SearchSetting, shared_rows
from diet_ray.config import FitConfig, RunConfig
from diet_ray.errors import ConfigError, ResourceError, RunError
from diet_ray.evaluation.trial import TrialRecord
from diet_ray.log.dataset import PreparedLog
from diet_ray.runs.run import Run, differences, memory_stamp
from diet_ray.storage import Folder, absolute
from pipelines.evaluate import complete_run, log_of, write_table
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import Bars, bars, console
from pipelines.runtime.sweep import Scheduler, Searcher, Sweep, records, run_sweep
from tune_spaces.space import Spaces, load_space


@dataclass(frozen=True)
class Search:
    """Search a space of candidate architectures on the memory of a run.

    $ diet-ray search --run runs/globo --space joint --samples 32

    $ diet-ray search --run runs/globo --samples 32 --resume

    $ diet-ray search --run runs/globo --space my_package.my_space --samples 100 --searcher optuna --name mine

    Writes RUN/search/results.parquet, one row per trial, best.yaml, which `evaluate` and `train` take, and
    tensorboard/ (needs `pip install tensorboard` to look at).
    """

    run: str
    """Directory of a run that has distilled all its blocks."""
    space: str = "joint"
    """joint, dcn, dcnv2, finalnet, finalmlp, wukong, or a module of yours with SPACE (see tune_spaces)."""
    samples: int = 32
    """Number of candidates."""
    scheduler: Scheduler = "asha"
    """asha: stop a trial where two thirds did better after as many epochs; none: run every trial out."""
    searcher: Searcher = "random"
    """random, or optuna: learn from the trials before."""
    confirm: int = 3
    """How many of the best are trained on the subsequent block too and scored on the test block."""
    seeds: int = 1
    """Seeds per trial and per confirmation; the mean counts."""
    seed: int = 0
    """Of the draw of candidates."""
    resume: bool = False
    """Go on with a search that was interrupted, or add samples to one that was not."""
    name: str = "search"
    """Folder of the run directory that the search lives in."""
    max_concurrent: int | None = None
    """Trials at a time; as many as the cluster holds where it is left out."""
    threads: int = 1
    """CPUs of a trial."""
    gpus: float | None = None
    """Share of a GPU of a trial; a quarter where there are GPUs."""
    data: str | None = None
    """Directory of the prepared log, where it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        for option in ("samples", "seeds", "threads"):
            if getattr(self, option) < 1:
                raise ConfigError(f"--{option} is {getattr(self, option)}; at least 1 is needed")
        found = search(self)
        Console(width=None if sys.stdout.isatty() else 160).print(leaderboard(found))


class Place(NamedTuple):
    """Where the search works and what it works on."""

    folder: Folder  # of the search
    url: str
    data: str
    run: str
    config: RunConfig


def search(asked: Search) -> pd.DataFrame:
    """Run what is missing of a search; return one row per trial, the best first.

    Raises ConfigError where the space is none, RunError where the run is not complete, the folder holds a
    search and `resume` is not asked for, or holds another one.
    """
    spaces = load_space(asked.space)
    data, run = absolute(asked.data or log_of(asked.run)), absolute(asked.run)
    log = PreparedLog.open(data)
    config = complete_run(run, log)
    place = Place(Folder.at(f"{run}/{asked.name}"), f"{run}/{asked.name}", data, run, config)
    _claim(place.folder, asked, _settings(asked, Run.read(run)))
    cluster = connect()
    try:
        with bars() as shown:
            _sweep(asked, spaces, place, cluster, shown)
            _confirm(asked, place, shown)
    finally:
        results = _publish(asked, place.folder)
    return results


def _settings(asked: Search, run: Run) -> dict[str, Any]:
    """What the trials of one folder must have in common."""
    memory = memory_stamp(run.records[-1])
    kept = ("space", "scheduler", "searcher", "seeds", "seed", "threads")
    own = {key: getattr(asked, key) for key in kept}
    return {**own, "fit": asked.fit.model_dump(), "memory": memory.sha256}


def _claim(folder: Folder, asked: Search, settings: dict[str, Any]) -> None:
    """Make the folder this search's; RunError where it is another's."""
    if not folder.exists("settings.json"):
        folder.write_json("settings.json", settings)
        return
    if not asked.resume:
        raise RunError(
            f"{folder.root} holds a search: go on with --resume, or choose another folder with --name"
        )
    if told := differences(folder.read_json("settings.json"), settings):
        raise RunError(f"{folder.root} holds another search: {told}. Choose another folder with --name")


def _sweep(asked: Search, spaces: Spaces, place: Place, cluster: dict[str, float], shown: Bars) -> None:
    gpus = asked.gpus if asked.gpus is not None else gpu_share(cluster)
    held = _held(cluster, asked.threads, gpus)
    concurrent = min(asked.max_concurrent or held, held)
    console.print(
        f"{asked.samples} candidates of space {asked.space}, {concurrent} at a time, "
        f"{asked.threads} CPU and {gpus:g} GPU each"
    )
    fit = asked.fit.model_dump()
    with user_errors():
        rows = shared_rows.remote(place.data, place.run, place.config.model_dump(mode="json"), fit)
        ray.get(rows)  # what is wrong with the memory is told before the sweep starts
    setting = SearchSetting(place.url, asked.fit, asked.seeds, asked.threads)
    kept = (asked.searcher, asked.scheduler, asked.seed)
    with shown.bar("trials", asked.samples, "trials") as bar:
        run_sweep(Sweep(spaces, asked.samples, *kept, concurrent, gpus), setting, rows, bar)


def _held(cluster: dict[str, float], threads: int, gpus: float) -> int:
    """Trials the cluster holds at a time; ResourceError where it is not one."""
    held = int(cluster.get("CPU", 0) // threads)
    if gpus:
        held = min(held, int(cluster.get("GPU", 0) / gpus))
    if held < 1:
        raise ResourceError(
            f"a trial of {threads} CPUs and {gpus:g} GPUs does not fit into {cluster.get('CPU', 0):g} CPUs "
            f"and {cluster.get('GPU', 0):g} GPUs; set --threads or --gpus lower"
        )
    return held


def ranked(found: list[TrialRecord]) -> list[TrialRecord]:
    """Trials that scored, the highest validation AUC first; those that failed in the end are left out."""
    scored = [record for record in found if record.epochs and record.state != "failed"]
    return sorted(scored, key=lambda record: -record.best_until(record.epochs).auc)


def _confirm(asked: Search, place: Place, shown: Bars) -> None:
    """Train the best few with tables and the subsequent block; one that fails is told and left out."""
    best = ranked(records(place.folder, asked.samples))[: asked.confirm]
    missing = [
        (record, seed)
        for record in best
        for seed in range(asked.seeds)
        if not place.folder.exists(_confirmation(record.number, seed))
    ]
    config = place.config.model_dump(mode="json")
    fit = asked.fit.model_dump()
    task = evaluate_cell.options(num_gpus=gpu_share(ray.cluster_resources()))
    running = {
        task.remote(
            place.data, place.run, config, "diet", record.candidate.model_dump(mode="json"), seed, fit
        ): (record.number, seed)
        for record, seed in missing
    }
    with shown.bar("confirming the best", len(missing), "cells") as bar:
        for (number, seed), done in as_finished(running):
            try:
                place.folder.write_json(_confirmation(number, seed), ray.get(done).flat())
            except ray.exceptions.RayError as failed:
                console.print(f"trial {number} seed {seed} could not be confirmed: {failed}", markup=False)
            bar.advance(1)


def _confirmation(number: int, seed: int) -> str:
    return f"confirmed/{number:04d}-{seed}.json"


def _publish(asked: Search, folder: Folder) -> pd.DataFrame:
    """Write results.parquet and best.yaml from what is on record."""
    found = records(folder, asked.samples)
    results = pd.DataFrame([_row(record, asked, folder) for record in found])
    if results.empty:
        return results
    results = results.sort_values(["confirmed_validation_auc", "auc"], ascending=False, ignore_index=True)
    write_table(folder, "results", results)
    if results["auc"].notna().any():
        best = next(record for record in found if record.number == results["number"][0])
        folder.write("best.yaml", yaml.safe_dump(best.candidate.model_dump(mode="json")).encode())
    return results


def _row(record: TrialRecord, asked: Search, folder: Folder) -> dict[str, Any]:
    """A trial as a row; scores after confirmation are means over the seeds, NaN where there is none."""
    best = record.best_until(record.epochs) if record.epochs and record.state != "failed" else None
    paths = [_confirmation(record.number, seed) for seed in range(asked.seeds)]
    confirmed = pd.DataFrame([folder.read_json(path) for path in paths if folder.exists(path)])
    nothing = float("nan")

    def mean(column: str) -> float:
        return nothing if confirmed.empty else float(confirmed[column].mean())

    return {
        "number": record.number,
        "model": record.candidate.name,
        "candidate": json.dumps(record.candidate.model_dump(mode="json"), sort_keys=True),
        "learning_rate": record.candidate.learning_rate,
        "state": record.state,
        "reason": record.reason,
        "auc": best.auc if best else nothing,
        "logloss": best.logloss if best else nothing,
        "epochs": record.epochs,
        "epoch_auc": [[score.auc for score in of_seed] for of_seed in record.scores],
        "epoch_logloss": [[score.logloss for score in of_seed] for of_seed in record.scores],
        "seeds": len(record.scores),
        "seconds": record.seconds,
        "peak_bytes": record.peak_bytes,
        "confirmed_validation_auc": mean("auc_validation"),
        "confirmed_test_auc": mean("auc"),
        "confirmed_test_logloss": mean("logloss"),
    }


def leaderboard(results: pd.DataFrame, rows: int = 10) -> Table:
    """The best trials; test scores exist for those that were confirmed."""
    shown = Table(
        *("trial", "model", "AUC", "LogLoss", "epochs", "seconds", "confirmed", "test AUC", "test LogLoss"),
        "candidate",
        title="Best candidates",
        caption="AUC, LogLoss: validation, before the subsequent block; confirmed: validation AUC after it",
    )
    for row in results[results["auc"].notna()].head(rows).to_dict("records") if len(results) else []:
        shown.add_row(
            *(str(row["number"]), row["model"], f"{row['auc']:.4f}", f"{row['logloss']:.4f}"),
            *(str(row["epochs"]), f"{row['seconds']:.0f}"),
            *(
                "" if pd.isna(row[key]) else f"{row[key]:.4f}"
                for key in ("confirmed_validation_auc", "confirmed_test_auc", "confirmed_test_logloss")
            ),
            _short(json.loads(row["candidate"])),
        )
    return shown


def _short(candidate: dict[str, Any]) -> str:
    told = {**candidate["options"], "learning_rate": candidate["learning_rate"]}
    return ", ".join(f"{key} {f'{v:.2g}' if isinstance(v, float) else v}" for key, v in told.items())


if __name__ == "__main__":
    sys.exit(run_command(Search, "diet-ray search"))

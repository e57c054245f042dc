"""Search for an architecture on the memory of a run: a sweep of cheap trials, the best few confirmed.

A trial trains a candidate's dense part on the memory, in embedding space. The best are then trained as
`evaluate` trains a candidate, with the tables of the reference and the subsequent block, and scored on the
test block.
"""

import sys
from typing import Any

import pandas as pd
import ray
from rich.console import Console

from actors.cells import evaluate_cell, trial_arrays
from actors.connection import connect, user_errors
from actors.placement import Claim, Node, cluster_nodes, task_claim
from actors.tasks import as_finished
from actors.trials import SearchSetting
from diet_ray import layout
from diet_ray.errors import ConfigError, ResourceError, RunError
from diet_ray.runs.run import Run, differences
from diet_ray.storage import Folder
from diet_ray.stored_config import upgrade_fit
from pipelines.options.search import Search
from pipelines.runtime.command import run_command, say_next
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.progress import Bars, bars, console
from pipelines.runtime.run_access import log_of
from pipelines.runtime.search_results import best_text, leaderboard, publish, ranked
from pipelines.runtime.sweep import Sweep, run_sweep, trial_records
from tune_spaces.space import Spaces, load_space

SETTINGS = ("space", "scheduler", "searcher", "seeds", "seed", "threads")  # that trials must share


def execute(options: Search) -> None:
    for option in ("samples", "seeds", "threads"):
        if getattr(options, option) < 1:
            raise ConfigError(f"--{option} is {getattr(options, option)}; at least 1 is needed")
    results = search(options)
    out = Console()
    out.print(leaderboard(results))
    out.print(best_text(results), soft_wrap=True, markup=False)
    best = f"{options.run}/{options.name}/{layout.BEST_CANDIDATE}"
    say_next("train", "--run", options.run, "--candidate", best, "--out", "models/best")


def search(options: Search) -> pd.DataFrame:
    """Run what is missing of a search; return one row per trial, the best first.

    Raises:
        ConfigError: where there is no such space.
        RunError: where the run is not complete, or the folder holds a search and `resume` is not set, or a
            different search.
    """
    spaces = load_space(options.space)
    evaluated = EvaluatedRun.open(options.data or log_of(options.run), options.run)
    url = f"{evaluated.url}/{options.name}"
    folder = Folder.at(url)
    _claim(folder, options, _settings(options, Run.read(evaluated.url)))
    connect()
    nodes = cluster_nodes()
    try:
        with bars() as shown:
            _sweep(options, spaces, evaluated, url, nodes, shown)
            _confirm(options, evaluated, folder, shown)
    finally:
        results = publish(folder, samples=options.samples, seeds=options.seeds)
    if not results["objective"].notna().any():
        reason = results["reason"].iloc[0]
        raise RunError(f"all {len(results)} trials of {folder.root} failed, the first with: {reason}")
    return results


def _settings(options: Search, run: Run) -> dict[str, Any]:
    """What the trials of one folder must have in common."""
    own = {key: getattr(options, key) for key in SETTINGS}
    memory = run.records[-1].memory_stamp()
    return {**own, "fit": options.fit.model_dump(mode="json"), "memory": memory.sha256}


def _claim(folder: Folder, options: Search, settings: dict[str, Any]) -> None:
    """Make the folder this search's; RunError where it is another's."""
    if not folder.exists(layout.SETTINGS):
        folder.write_json(layout.SETTINGS, settings)
        return
    if not options.resume:
        raise RunError(f"{folder.root} holds a search: add --resume, or choose another folder with --name")
    stored = folder.read_json(layout.SETTINGS)
    stored["fit"] = upgrade_fit(stored["fit"])
    if changed := differences(stored, settings):
        raise RunError(f"{folder.root} holds a different search ({changed}); choose another --name")


def _sweep(
    options: Search,
    spaces: Spaces,
    evaluated: EvaluatedRun,
    url: str,
    nodes: list[Node],
    shown: Bars,
) -> None:
    claim = task_claim(nodes, options.threads, options.gpus)
    capacity = _capacity(nodes, claim)
    concurrent = min(options.max_concurrent or capacity, capacity)
    console.print(
        f"{options.samples} candidates of space {options.space}, {concurrent} at a time, "
        f"{options.threads} CPU and {claim.gpus:g} GPU each"
    )
    with user_errors():
        rows = trial_arrays.remote(*evaluated.task_arguments(), options.fit)
        ray.get(rows)  # what is wrong with the memory is reported before the sweep starts
    sweep = Sweep(
        spaces=spaces,
        samples=options.samples,
        searcher=options.searcher,
        scheduler=options.scheduler,
        seed=options.seed,
        max_concurrent=concurrent,
        gpus=claim.gpus,
    )
    setting = SearchSetting(url, options.fit, options.seeds, options.threads)
    with shown.bar("trials", options.samples, "trials") as bar:
        run_sweep(sweep, setting, rows, bar)


def _capacity(nodes: list[Node], claim: Claim) -> int:
    """Trials that fit the nodes at a time; ResourceError where none does."""
    capacity = sum(claim.fits(node) for node in nodes)
    if capacity < 1:
        raise ResourceError(
            f"a trial of {claim.cpus:g} CPUs and {claim.gpus:g} GPUs fits on none of the {len(nodes)} nodes; "
            "set --threads or --gpus lower"
        )
    return capacity


def _confirm(options: Search, evaluated: EvaluatedRun, folder: Folder, shown: Bars) -> None:
    """Train the best few with tables and the subsequent block; a failure is reported and left out."""
    best = ranked(trial_records(folder, options.samples))[: options.confirm]
    missing = [
        (record, seed)
        for record in best
        for seed in range(options.seeds)
        if not folder.exists(layout.confirmation(record.number, seed))
    ]
    if not missing:
        return
    task = evaluate_cell.options(num_gpus=task_claim(cluster_nodes()).gpus)
    arguments = evaluated.task_arguments()
    running = {
        task.remote(*arguments, "diet", record.candidate, seed, options.fit): (record.number, seed)
        for record, seed in missing
    }
    with shown.bar("confirming the best", len(missing), "cells") as bar:
        for (number, seed), done in as_finished(running):
            try:
                folder.write_json(layout.confirmation(number, seed), ray.get(done).flat())
            except ray.exceptions.RayError as failed:
                console.print(f"trial {number} seed {seed} could not be confirmed: {failed}", markup=False)
            bar.advance(1)


if __name__ == "__main__":
    sys.exit(run_command(Search, "diet-ray search"))

"""Search for an architecture: cheap judges in a sweep of trials, the best few confirmed.

A trial passes a few epochs on the memory, which stop who cannot learn, and then the newest block piece by
piece before judges that score rows before they are learned. The best are then trained as `evaluate` trains a
candidate, on the memory or on all history, and scored on the test block.
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
from diet_ray.evaluation.judges.anchors import read_anchors
from diet_ray.evaluation.judges.prequential import JUDGES
from diet_ray.evaluation.methods import Method
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.runs.run import Run
from diet_ray.storage import Folder
from diet_ray.stored_config import upgrade_fit
from diet_ray.strict import differences
from pipelines.options.search import MEMORY, Scheduler, Search
from pipelines.runtime.candidates import listed
from pipelines.runtime.command import keeping, run_command, say_next
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.progress import Bars, bars, console
from pipelines.runtime.run_access import log_of
from pipelines.searching.anchoring import calibrated
from pipelines.searching.leaderboard import leaderboard, summary
from pipelines.searching.results import full_training_due, publish
from pipelines.searching.rungs import Budget, default_rungs, parsed_budget
from pipelines.searching.sweep import Sweep, run_sweep, trial_records
from tune_spaces.space import Spaces, load_space

# What trials of one folder must share.
SETTINGS = ("space", "searcher", "seeds", "seed", "threads", "memory_epochs")


def execute(options: Search) -> None:
    for option in ("samples", "seeds", "threads", "full_trainings"):
        if getattr(options, option) < 1:
            raise ConfigError(
                f"--{option.replace('_', '-')} is {getattr(options, option)}; at least 1 is needed"
            )
    results = search(options)
    out = Console()
    out.print(leaderboard(results))
    for line in summary(results, options.samples):
        out.print(line, soft_wrap=True, markup=False)
    best = f"{options.run}/{options.name}/{layout.BEST_CANDIDATE}"
    say_next("train", "--run", options.run, "--candidate", best, "--out", "models/best")


def search(options: Search) -> pd.DataFrame:
    """Run what is missing of a search; return one row per trial, the best first.

    Raises:
        ConfigError: where there is no such space or judge.
        RunError: where the run is not complete, or the folder holds a different search.
    """
    judges, budget = _judges(options), parsed_budget(options.budget)
    if budget.trainings is not None and not judges:
        raise ConfigError("--budget in full trainings needs judges; give minutes (20m) with --judges memory")
    anchors = read_anchors(options.anchors) if options.anchors else []
    if anchors and not judges:
        raise ConfigError("--anchors calibrates judges; --judges memory has none")
    if options.scale_up and (options.max_concurrent is None or options.gpus is None):
        raise ConfigError("--scale-up needs --max-concurrent and --gpus: they are what is asked for")
    spaces = load_space(options.space)
    evaluated = EvaluatedRun.open(options.data or log_of(options.run), options.run)
    url = f"{evaluated.url}/{options.name}"
    folder = Folder.at(url)
    _claim(folder, options, _settings(options, judges, Run.read(evaluated.url)))
    _forget_failures(folder, options.samples)
    connect()
    nodes = cluster_nodes()
    try:
        with keeping(lambda: "finished epochs, pieces and trials are kept", "--resume"), bars() as shown:
            if anchors:
                gpus = task_claim(nodes, options.threads, options.gpus).gpus
                calibrated(anchors, judges, options.seeds, evaluated, folder, gpus, shown)
            _sweep(options, judges, budget, spaces, evaluated, url, nodes, shown)
            _confirm(options, evaluated, folder, shown)
    finally:
        results = publish(folder, evaluated, samples=options.samples, seeds=options.seeds)
    if not results["objective"].notna().any():
        reason = results["reason"].iloc[0]
        raise RunError(f"all {len(results)} trials of {folder.root} failed, the first with: {reason}")
    return results


def _judges(options: Search) -> tuple[str, ...]:
    """The judges of a search, none where the memory alone decides; ConfigError for an unknown one."""
    names = listed(options.judges, "judges", (*JUDGES, MEMORY))
    if MEMORY in names and len(names) > 1:
        raise ConfigError("--judges memory goes alone; the memory comes before other judges in any case")
    return () if MEMORY in names else tuple(names)


def _scheduler(options: Search, judges: tuple[str, ...]) -> Scheduler:
    if options.scheduler == "rungs" and not judges:
        raise ConfigError("--scheduler rungs needs judges; --judges memory takes asha or none")
    if options.scheduler != "auto":
        return options.scheduler
    return "rungs" if judges else "asha"


def _settings(options: Search, judges: tuple[str, ...], run: Run) -> dict[str, Any]:
    """What the trials of one folder must have in common."""
    own = {key: getattr(options, key) for key in SETTINGS if judges or key != "memory_epochs"}
    if judges:
        own["judges"] = {name: JUDGES[name].model_dump(mode="json") for name in judges}
    memory = run.records[-1].memory_stamp()
    return {
        **own,
        "scheduler": _scheduler(options, judges),
        "fit": options.fit.model_dump(mode="json"),
        "memory": memory.sha256,
    }


def _claim(folder: Folder, options: Search, settings: dict[str, Any]) -> None:
    """Make the folder this search's; RunError where it holds trials of another."""
    if folder.exists(layout.SETTINGS):
        stored = folder.read_json(layout.SETTINGS)
        stored["fit"] = upgrade_fit(stored["fit"])
        changed = differences(stored, settings)
        if not changed:
            return
        if trial_records(folder, options.samples):
            raise RunError(f"{folder.root} holds a different search ({changed}); choose another --name")
    folder.write_json(layout.SETTINGS, settings)


def _forget_failures(folder: Folder, samples: int) -> None:
    """Trials that failed start again: what they failed of may have been mended since."""
    failed = [record for record in trial_records(folder, samples) if record.state == "failed"]
    for record in failed:
        folder.fs.rm(folder / layout.trial(record.number))
    if failed:
        console.print(f"{len(failed)} trials that failed are tried again")


def _sweep(
    options: Search,
    judges: tuple[str, ...],
    budget: Budget,
    spaces: Spaces,
    evaluated: EvaluatedRun,
    url: str,
    nodes: list[Node],
    shown: Bars,
) -> None:
    claim = task_claim(nodes, options.threads, options.gpus)
    concurrent = _concurrent(options, [node for node in nodes if node.offers([options.nodes])], claim)
    console.print(
        f"{options.samples} candidates of space {options.space} before {', '.join(judges) or 'the memory'}, "
        f"{concurrent} at a time, {options.threads} CPU and {claim.gpus:g} GPU each"
    )
    with user_errors():
        rows = trial_arrays.remote(*evaluated.task_arguments(), options.fit)
        ray.get(rows)  # what is wrong with the memory is reported before the sweep starts
    pieces = min(JUDGES[name].pieces for name in judges) if judges else 0
    sweep = Sweep(
        spaces=spaces,
        samples=options.samples,
        searcher=options.searcher,
        scheduler=_scheduler(options, judges),
        seed=options.seed,
        max_concurrent=concurrent,
        gpus=claim.gpus,
        nodes=options.nodes,
        rungs=default_rungs(options.memory_epochs, pieces),
        budget=budget,
    )
    setting = SearchSetting(
        url,
        options.fit,
        options.seeds,
        options.threads,
        judges,
        options.memory_epochs,
        evaluated.task_arguments(),
    )
    with shown.bar("trials", options.samples, "trials") as bar:
        run_sweep(sweep, setting, rows, bar)


def _concurrent(options: Search, nodes: list[Node], claim: Claim) -> int:
    """Trials at a time; ResourceError where none fits the nodes that may run them."""
    if options.scale_up:
        assert options.max_concurrent  # `search` has asked for it
        return options.max_concurrent
    capacity = sum(claim.fits(node) for node in nodes)
    if capacity < 1:
        where = f" with {options.nodes}" if options.nodes else ""
        raise ResourceError(
            f"a trial of {claim.cpus:g} CPUs and {claim.gpus:g} GPUs fits on none of the {len(nodes)} "
            f"nodes{where}; set --threads or --gpus lower, or let an autoscaler bring nodes with --scale-up"
        )
    return min(options.max_concurrent or capacity, capacity)


def _confirm(options: Search, evaluated: EvaluatedRun, folder: Folder, shown: Bars) -> None:
    """Train the best few on the memory, or on all history those who tell most."""
    if options.confirm != "full":
        ranked = publish(folder, evaluated, samples=options.samples, seeds=options.seeds)
        scored: list[int] = ranked["number"][ranked["objective"].notna()].tolist() if len(ranked) else []
        return _train(scored[: options.confirm], "diet", options, evaluated, folder, shown)
    tried: list[int] = []
    while True:
        ranked = publish(folder, evaluated, samples=options.samples, seeds=options.seeds)
        wave = full_training_due(ranked, tried, options.full_trainings)
        if not wave:
            return
        _train(wave, "full", options, evaluated, folder, shown)
        tried += wave


def _train(
    numbers: list[int],
    method: Method,
    options: Search,
    evaluated: EvaluatedRun,
    folder: Folder,
    shown: Bars,
) -> None:
    """Train trials as `evaluate` does where that is not on record; a failure is reported and left out."""
    best = [record for number in numbers if (record := TrialRecord.read(folder, number))]
    missing = [
        (record, seed)
        for record in best
        for seed in range(options.seeds)
        if not folder.exists(layout.confirmation(method, record.number, seed))
    ]
    if not missing:
        return
    task = evaluate_cell.options(num_gpus=task_claim(cluster_nodes()).gpus)
    arguments = evaluated.task_arguments()
    running = {
        task.remote(*arguments, method, record.candidate, seed, options.fit): (record.number, seed)
        for record, seed in missing
    }
    with shown.bar("confirming the best", len(missing), "cells") as bar:
        for (number, seed), done in as_finished(running):
            try:
                folder.write_json(layout.confirmation(method, number, seed), ray.get(done).flat())
            except ray.exceptions.RayError as failed:
                console.print(f"trial {number} seed {seed} could not be confirmed: {failed}", markup=False)
            bar.advance(1)


if __name__ == "__main__":
    sys.exit(run_command(Search, "diet-ray search"))

"""The sweep of a search: Ray Tune decides which candidate runs how long, trials keep their own records.

Resumed on the same folder, a sweep replays to Tune what is on record, so that its scheduler and searcher are
in the same state, and trains only what is missing. Nothing of Tune's own state, which is pickled, is kept.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from actors.placement import SLIVER
from actors.trials import SearchSetting, TuneTrial
from diet_ray import layout
from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.seeding import derived_seed, numpy_generator
from diet_ray.storage import Folder
from pipelines.options.search import Scheduler, Searcher
from pipelines.runtime.board import Board
from pipelines.runtime.progress import Bar, console
from pipelines.searching.rungs import Budget, Rung, Rungs
from tune_spaces.space import Spaces, sample


class Sweep(NamedTuple):
    """The candidates of a sweep and how they are drawn and stopped."""

    spaces: Spaces
    samples: int
    searcher: Searcher
    scheduler: Scheduler  # not auto
    seed: int
    max_concurrent: int
    gpus: float  # per trial
    nodes: str = ""  # custom resource of the nodes that may run trials
    rungs: tuple[Rung, ...] = ()
    budget: Budget = Budget()


def run_sweep(sweep: Sweep, setting: SearchSetting, rows: "ray.ObjectRef", bar: Bar) -> None:
    """Run the missing trials; their results are in their records.

    rows: reference to actors.cells.trial_arrays.
    """
    folder = Folder.at(setting.folder)
    trainable = tune.with_resources(
        tune.with_parameters(TuneTrial, rows=[rows], setting=setting),
        {"cpu": setting.threads, "gpu": sweep.gpus, **({sweep.nodes: SLIVER} if sweep.nodes else {})},
    )
    with _scratch() as scratch:
        tune.Tuner(
            trainable,
            **_tuner_arguments(sweep, folder),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[Recorder(folder, bar, sweep.budget)],
                stop=sweep.budget,
            ),
        ).fit()


def trial_records(folder: Folder, samples: int) -> list[TrialRecord]:
    """The records of the first `samples` trials of a search, those that exist."""
    records = (TrialRecord.read(folder, number) for number in range(samples))
    return [record for record in records if record]


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for what Tune insists on writing; Tune leaves the terminal and signals alone."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # They complain about result files that we do not write, and repeat failures that we report.
    for name in (
        "ray.tune.analysis.experiment_analysis",
        "ray.tune.execution.tune_controller",
        "ray.tune.tune",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    folder = tempfile.mkdtemp(prefix="diet-ray-sweep-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tuner_arguments(sweep: Sweep, folder: Folder) -> dict[str, Any]:
    """Tuner's `param_space` and `tune_config`."""
    config: dict[str, Any] = {
        "metric": "objective",
        "mode": "max",
        "scheduler": _scheduler(sweep),
        "max_concurrent_trials": sweep.max_concurrent,
        "reuse_actors": True,
        "trial_dirname_creator": lambda trial: trial.trial_id,
    }
    if sweep.searcher == "random":
        trials = [
            _tune_config(n, sample(sweep.spaces, numpy_generator(sweep.seed, "search", n)), {})["trial"]
            for n in range(sweep.samples)
        ]
        return {
            "param_space": {"trial": tune.grid_search(trials)},
            "tune_config": tune.TuneConfig(num_samples=1, **config),
        }
    return {
        "tune_config": tune.TuneConfig(num_samples=sweep.samples, search_alg=_optuna(sweep, folder), **config)
    }


def _scheduler(sweep: Sweep) -> TrialScheduler:
    if sweep.scheduler == "rungs":
        return Rungs(sweep.rungs)
    if sweep.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(time_attr="training_iteration", grace_period=1, reduction_factor=3, max_t=10_000)


def _optuna(sweep: Sweep, folder: Folder) -> Any:
    try:
        from ray.tune.search.optuna import OptunaSearch

        from tune_spaces.optuna_space import OptunaSpace
    except ImportError as missing:
        raise ConfigError(
            f"--searcher optuna needs Optuna: pip install 'diet-ray[optuna]' ({missing})"
        ) from None
    recorded: list[dict[str, Any]] = []
    while record := TrialRecord.read(folder, len(recorded)):
        recorded.append(record.drawn)
    return OptunaSearch(
        OptunaSpace(sweep.spaces, _tune_config),
        metric="objective",
        mode="max",
        points_to_evaluate=recorded,
        # With the recorded points replayed it would otherwise repeat its draws.
        seed=derived_seed(sweep.seed, "optuna", len(recorded)) % 2**32,
    )


def _tune_config(number: int, candidate: CandidateConfig, drawn: dict[str, Any]) -> dict[str, Any]:
    """Tune's config of a trial: its record before it starts, in plain values."""
    started = TrialRecord(number=number, candidate=candidate, drawn=drawn)
    return {"trial": started.model_dump(mode="json")}


class Recorder(tune.Callback):
    """Follows the sweep in the driver: progress, TensorBoard, and the end of a trial whose process died."""

    def __init__(self, folder: Folder, bar: Bar, budget: Budget) -> None:
        self.folder, self.bar, self.budget = folder, bar, budget
        self.boards: dict[int, Board] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to restore them, which we never ask it to."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any
    ) -> None:
        if result["epoch"]:
            number = _number(trial)
            step = result["training_iteration"]
            if number not in self.boards:
                self.boards[number] = Board(self.folder, layout.tensorboard(number), step)
            self.boards[number].add(step, {f"validation/{name}": v for name, v in result["epoch"].items()})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial, "stopped", "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # A trial whose process died could not record why.
        self._ended(trial, "failed", str(trial.get_pickled_error() or "its process died").strip()[:500])

    def _ended(self, trial: Any, state: str, reason: str) -> None:
        number = _number(trial)
        record = TrialRecord.read(self.folder, number) or TrialRecord.model_validate(trial.config["trial"])
        # Whom the budget interrupts goes on when the search is resumed with more.
        if not (record.state == "running" and state == "stopped" and self.budget.exhausted):
            if record.state == "running":
                record = record.model_copy(update={"state": state, "reason": reason})
                record.write(self.folder)
            for path in self.folder.fs.glob(self.folder / layout.trial_states(number)):
                self.folder.fs.rm(path)
        if board := self.boards.pop(number, None):
            board.close()
        self.bar.advance(1)
        console.print(trial_text(record), markup=False)


def trial_text(record: TrialRecord) -> str:
    """A trial in a line."""
    scored = f"{record.epochs} epochs"
    if record.pieces:
        scored = f"{record.epochs} epochs, {record.pieces} pieces"
    if record.steps and record.state != "failed":
        best = record.score_after(record.steps)
        scored = f"AUC {best.auc:.4f}, LogLoss {best.logloss:.4f}, {scored}"
    ended = f"failed: {record.reason}" if record.state == "failed" else record.state
    return f"trial {record.number} {record.candidate.name}: {scored}, {record.seconds:.0f} s, {ended}"


def _number(trial: Any) -> int:
    return int(trial.config["trial"]["number"])

"""Train candidates fully, one after another: the truth that cheaper judges of a search are held against."""

import io
import sys
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from diet_ray import layout
from diet_ray.config import CandidateConfig, TrainingConfig
from diet_ray.errors import ConfigError, RunError
from diet_ray.evaluation.full_training import FullTraining, row_arrays, train_fully
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.split import EarlierLog
from diet_ray.models.registry import ARCHITECTURES
from diet_ray.storage import Folder, file_at
from pipelines.options.truth import Truth
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import console
from pipelines.runtime.run_access import write_table
from pipelines.studies.ranked_candidates import narrow_candidates

THREADS = 1  # two processes of two threads each on two cores run many times slower than one


def execute(options: Truth) -> None:
    for option in ("each", "seeds", "dim"):
        if getattr(options, option) < 1:
            raise ConfigError(f"--{option} is {getattr(options, option)}; at least 1 is needed")
    results = train_all(options)
    Console().print(
        f"{len(results)} full trainings of {results['candidate'].nunique()} candidates in {options.out}, "
        f"{results['seconds'].mean():.0f} s of CPU each",
        soft_wrap=True,
    )


def train_all(options: Truth) -> pd.DataFrame:
    """Train what is missing; one row per training, in the order in which they are due.

    Raises:
        RunError: where the folder holds trainings of another log or with other settings.
    """
    log = _log(options.data, options.split)
    folder, training = Folder.at(options.out), TrainingConfig()
    _claim(folder, options, log, training)
    if options.known:
        _take_known(folder, options.known)
    torch.set_num_threads(THREADS)
    candidates = narrow_candidates(options.each)
    due = [(name, seed) for seed in range(options.seeds) for name in candidates]
    for name, seed in due:
        if not folder.exists(layout.full_training(name, seed)):
            trained = train_fully(candidates[name], seed, log, options.dim, training)
            _keep(folder, name, candidates[name], seed, trained)
            write_table(folder, layout.TRUTH_RESULTS, pd.DataFrame(trainings(folder)))
            console.print(
                f"{name} seed {seed}: validation AUC {trained.validation.scores(log.tasks).auc:.4f}, "
                f"{trained.seconds:.0f} s of CPU"
            )
    return pd.DataFrame([folder.read_json(layout.full_training(*cell)) for cell in due])


def opened_log(folder: Folder, data: str) -> tuple[PreparedLog, int]:
    """The log of a truth experiment, split as there, and its dimension; RunError where `data` is another."""
    if not folder.exists(layout.SETTINGS):
        raise RunError(f"{folder.root} is no truth experiment: run `diet-ray truth` first")
    settings = folder.read_json(layout.SETTINGS)
    log = _log(data, settings["split"])
    if log.fingerprint != settings["fingerprint"]:
        raise RunError(f"{folder.root} holds full trainings on a different preparation of the log")
    return log, settings["dim"]


def trained_candidates(folder: Folder) -> dict[str, CandidateConfig]:
    """Every candidate with a full training, in the order in which they were due."""
    rows = trainings(folder)
    return {row["candidate"]: CandidateConfig.model_validate(row["config"]) for row in rows}


def trainings(folder: Folder) -> list[dict[str, Any]]:
    """The records of all full trainings, by seed and number of the candidate."""
    paths = folder.fs.glob(f"{folder.root}/{layout.TRUTH_CELLS}/*.json")
    rows = [folder.read_json(f"{layout.TRUTH_CELLS}/{path.rsplit('/', 1)[-1]}") for path in paths]
    return sorted(rows, key=lambda row: (row["seed"], row["candidate"].rsplit("-", 1)[-1], row["candidate"]))


def _log(data: str, split: str) -> PreparedLog:
    log = PreparedLog.open(data)
    return EarlierLog(log) if split == "earlier" else log


def _claim(folder: Folder, options: Truth, log: PreparedLog, training: TrainingConfig) -> None:
    """Make the folder this experiment's; RunError where it is another's."""
    settings = {
        "fingerprint": log.fingerprint,
        "split": options.split,
        "dim": options.dim,
        "architectures": list(ARCHITECTURES),
        "training": training.model_dump(mode="json"),
    }
    if not folder.exists(layout.SETTINGS):
        folder.write_json(layout.SETTINGS, settings)
    elif folder.read_json(layout.SETTINGS) != settings:
        raise RunError(
            f"{folder.root} holds trainings of another log or with other settings; choose another --out"
        )


def _take_known(folder: Folder, file: str) -> None:
    """Put the records of a published experiment into the folder, those that it lacks, of judges too.

    Raises:
        ConfigError: the file is of another log, of other settings, or of no experiment at all.
    """
    place, name = file_at(file, "truth.json")
    known = place.read_json(name)
    if not isinstance(known, dict) or known.get("settings") != folder.read_json(layout.SETTINGS):
        raise ConfigError(f"--known {file} is not of this log, this split and these settings")
    for record in known["full_trainings"]:
        path = layout.full_training(record["candidate"], record["seed"])
        if not folder.exists(path):
            folder.write_json(path, record)
    for record in known.get("judged", ()):
        path = layout.judged(record["judge"], record["candidate"], record["seed"])
        if not folder.exists(path):
            folder.write_json(path, {name: value for name, value in record.items() if name != "candidate"})


def _keep(folder: Folder, name: str, candidate: CandidateConfig, seed: int, trained: FullTraining) -> None:
    """Write rows first and the record last: a training exists when its record does."""
    content = io.BytesIO()
    np.savez_compressed(content, **row_arrays(trained))  # type: ignore[arg-type]  # its own flag is no name
    folder.write(layout.full_training_rows(name, seed), content.getvalue())
    record: dict[str, Any] = {
        "candidate": name,
        "seed": seed,
        "config": candidate.model_dump(mode="json"),
        **trained.flat(),
    }
    folder.write_json(layout.full_training(name, seed), record)


if __name__ == "__main__":
    sys.exit(run_command(Truth, "diet-ray truth"))

"""Hold cheap judges of a search against full training: what each costs, and how it ranks."""

import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from diet_ray import layout
from diet_ray.config import CandidateConfig, TrainingConfig
from diet_ray.errors import ConfigError, RunError
from diet_ray.evaluation.judges.prequential import JUDGES, JudgeSetting, Judging
from diet_ray.evaluation.judges.record import judged_to_the_end
from diet_ray.storage import Folder
from diet_ray.training.candidate_setup import candidate_recommender
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.checkpoints.writing import write_checkpoint
from diet_ray.training.learning import learn_block
from diet_ray.version import __version__
from pipelines.options.judge import Judge
from pipelines.reporting.judges import judge_page
from pipelines.reporting.tables import plain_table
from pipelines.runtime.candidates import listed
from pipelines.runtime.progress import console
from pipelines.runtime.run_access import write_table
from pipelines.studies.judge_baselines import FEWEST
from pipelines.studies.judge_table import judge_table, judged_scores
from pipelines.truth import THREADS, opened_log, trained_candidates

# What the tables of `mixed` and `warm` come from: one model, for a truth experiment has no run.
REFERENCE = CandidateConfig(name="dcnv2", options={"cross_layers": 2, "hidden": (128, 64)})


def execute(options: Judge) -> None:
    for option in ("seeds", "judge_seeds"):
        if getattr(options, option) < 1:
            given = f"--{option.replace('_', '-')} is {getattr(options, option)}"
            raise ConfigError(f"{given}; at least 1 is needed")
    judges = listed(options.judges, "judges", tuple(JUDGES))
    missing = judge_all(options, judges)
    out = Console()
    out.print(f"{missing} scores added in {options.truth}/judged", soft_wrap=True)
    folder = Folder.at(options.truth)
    if len(trained_candidates(folder)) >= FEWEST:
        table = judge_table(folder, options.day, options.seeds)
        write_table(folder, layout.JUDGE_RESULTS, table)
        folder.write(layout.JUDGE_PAGE, _page(folder, options, table).encode())
        out.print(plain_table(table.round(4), f"Against full training, {options.day} block"))


def _page(folder: Folder, options: Judge, table: pd.DataFrame) -> str:
    scores = judged_scores(folder, options.day, options.seeds)
    several = (
        " One seed is what can be bought, the mean of the others the truth: figures are means over which is "
        "bought, of a dot it is seed 0."
    )
    about = [
        f"{len(scores)} candidates with {options.seeds} full trainings each, by the mean AUC of the tasks on "
        f"the {options.day} block.{several if options.seeds > 1 else ''}",
        f"Log {options.data}.",
    ]
    footer = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by diet_ray {__version__}."
    return judge_page(table, scores, about, footer)


def judge_all(options: Judge, judges: list[str]) -> int:
    """Run what is missing, candidate by candidate, so that all judges know the same ones; how many that was.

    Raises:
        RunError: where nothing has been trained, or the folder is of another log.
    """
    folder = Folder.at(options.truth)
    log, dim = opened_log(folder, options.data)
    torch.set_num_threads(THREADS)
    candidates = trained_candidates(folder)
    if not candidates:
        raise RunError(f"{folder.root} has no full training: run `diet-ray truth` first")
    setting = JudgeSetting(log, dim, TrainingConfig())
    if any(JUDGES[judge].needs_reference for judge in judges):
        setting = setting._replace(checkpoint=_reference(folder, setting))
    due = [(j, c, s) for s in range(options.judge_seeds) for c in candidates for j in judges]
    missing = [cell for cell in due if not folder.exists(layout.judged(*cell))]
    for judge, name, seed in missing:
        record = judged_to_the_end(Judging(judge, JUDGES[judge], setting, candidates[name], seed), seed)
        folder.write_json(layout.judged(judge, name, seed), record.model_dump(mode="json"))
        console.print(f"{judge} {name} seed {seed}: AUC {record.auc[-1]:.4f}, {record.seconds:.0f} s of CPU")
    return len(missing)


def _reference(folder: Folder, setting: JudgeSetting) -> StoredCheckpoint:
    """The checkpoint of a model that has learned all history; trained where it is not there yet."""
    own = Folder.at(folder / layout.TRUTH_REFERENCE)
    if not folder.exists(layout.TRUTH_REFERENCE_COST):
        console.print("training the reference")
        started = time.process_time()
        reference = candidate_recommender(REFERENCE, 0, setting.log, setting.dim, setting.training)
        for block in setting.log.history:
            learn_block(reference, setting.log, block, setting.training, 0)
        write_checkpoint(own, 1, reference, [np.empty(0, np.int64) for _ in reference.tables.rows])
        cost = {
            "config": REFERENCE.model_dump(mode="json"),
            "rows": sum(block.rows for block in setting.log.history),
            "seconds": time.process_time() - started,
        }
        folder.write_json(layout.TRUTH_REFERENCE_COST, cost)
    return StoredCheckpoint(own, 1)

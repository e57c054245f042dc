"""Run a study: the tables and figures of the paper, and the ranking of candidates."""

import inspect
import sys
from typing import Literal

import pandas as pd
from rich.console import Console
from rich.table import Table

from diet_ray import layout
from diet_ray.errors import ConfigError
from pipelines.options.study import Study
from pipelines.reporting.tables import plain_table
from pipelines.runtime.candidates import listed, load_candidates
from pipelines.runtime.command import run_command, say_next
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.progress import console
from pipelines.runtime.run_access import log_of, write_table
from pipelines.studies.context import StudyContext
from pipelines.studies.definitions import STUDIES
from pipelines.studies.ranking_table import ranking_agreement
from pipelines.studies.ratio_table import recommended_ratio

Name = Literal["table3", "table4", "table5", "figure1", "figure3", "ratio", "reference", "ranking"]


def execute(options: Study) -> None:
    if options.seeds < 1:
        raise ConfigError(f"--seeds is {options.seeds}; at least 1 is needed")
    evaluated = EvaluatedRun.open(options.data or log_of(options.run), options.run)
    recipe = STUDIES[options.name]
    console.print(inspect.getdoc(recipe) or "", markup=False)
    candidates = load_candidates(listed(options.candidates, "candidates"))
    results = recipe(StudyContext(evaluated, candidates, options.seeds, options.fit))
    write_table(evaluated.folder, layout.study(options.name), results)
    out = Console()
    out.print(summary(results))
    if options.name == "ranking":
        agreement = ranking_agreement(results)
        write_table(evaluated.folder, layout.study("ranking_agreement"), agreement)
        out.print(plain_table(agreement, "Agreement with full training, test AUC"))
    if options.name == "ratio" and (choice := recommended_ratio(results)):
        out.print(choice.text, markup=False, soft_wrap=True)
    say_next("report", options.run)


def summary(results: pd.DataFrame) -> Table:
    """Means over candidates and seeds, by variant and method."""
    by = [column for column in ("variant", "method") if column in results]
    scores = [c for c in ("auc", "logloss", "auc_before", "seconds_epoch", "seconds_history") if c in results]
    means = results.groupby(by, sort=False)[scores].mean().reset_index()
    return plain_table(means, "Means over candidates and seeds")


if __name__ == "__main__":
    sys.exit(run_command(Study, "diet-ray study"))

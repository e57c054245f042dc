"""Run a study: the tables and figures of the paper, and the ranking of candidates."""

import inspect
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from diet_ray import layout
from diet_ray.config import FitConfig
from diet_ray.errors import ConfigError
from diet_ray.models.registry import ARCHITECTURES
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


@dataclass(frozen=True)
class Study:
    """Run a study on a finished run; rerun to resume, finished cells are kept.

    $ diet-ray study table3 --run runs/globo --seeds 5

    $ diet-ray study table4 --run runs/globo --candidates dcn,finalnet

    $ diet-ray study ranking --run runs/globo --seeds 2

    table3: methods x architectures. table4: parts of the method switched off. table5: seconds and memory.
    figure1: validation AUC along training. figure3: ratio x reference. ratio, reference: one of the two
    alone. ranking: do candidates rank as after full training? Writes RUN/studies/NAME.parquet and NAME.json.
    """

    name: tyro.conf.Positional[Name]
    """Which study."""
    run: str
    """Directory of a run that has distilled all its blocks."""
    seeds: int = 3
    """Number of seeds per cell: 0, 1, ..."""
    candidates: str = ",".join(ARCHITECTURES)
    """Comma list of architectures, package.module:Class, or YAML files; ranking draws its own."""
    data: str | None = None
    """Directory of the prepared log, if it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; at least 1 is needed")
        evaluated = EvaluatedRun.open(self.data or log_of(self.run), self.run)
        recipe = STUDIES[self.name]
        console.print(inspect.getdoc(recipe) or "", markup=False)
        candidates = load_candidates(listed(self.candidates, "candidates"))
        results = recipe(StudyContext(evaluated, candidates, self.seeds, self.fit))
        write_table(evaluated.folder, layout.study(self.name), results)
        out = Console(width=None if sys.stdout.isatty() else 160)
        out.print(summary(results))
        if self.name == "ranking":
            agreement = ranking_agreement(results)
            write_table(evaluated.folder, layout.study("ranking_agreement"), agreement)
            out.print(plain_table(agreement, "Agreement with full training, test AUC"))
        if self.name == "ratio" and (choice := recommended_ratio(results)):
            out.print(choice.text, markup=False, soft_wrap=True)
        say_next("report", self.run)


def summary(results: pd.DataFrame) -> Table:
    """Means over candidates and seeds, by variant and method."""
    by = [column for column in ("variant", "method") if column in results]
    scores = [c for c in ("auc", "logloss", "auc_before", "seconds_epoch", "seconds_history") if c in results]
    means = results.groupby(by, sort=False)[scores].mean().reset_index()
    return plain_table(means, "Means over candidates and seeds")


def plain_table(rows: pd.DataFrame, title: str) -> Table:
    shown = Table(*rows.columns, title=title)
    for row in rows.itertuples(index=False):
        shown.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    return shown


if __name__ == "__main__":
    sys.exit(run_command(Study, "diet-ray study"))

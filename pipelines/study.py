"""Run a named study: the tables and figures of the paper, and the ranking of candidates."""

import inspect
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from diet_ray.config import FitConfig
from diet_ray.errors import ConfigError
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.registry import ARCHITECTURES
from diet_ray.storage import Folder, absolute
from pipelines.evaluate import complete_run, listed, load_candidates, log_of, write_table
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import console
from pipelines.studies.context import StudyContext
from pipelines.studies.definitions import STUDIES, ranking_agreement

Name = Literal["table3", "table4", "table5", "figure1", "figure3", "ratio", "reference", "ranking"]


@dataclass(frozen=True)
class Study:
    """Run a study on a finished run; interrupted, the same command goes on, nothing that is done runs again.

    $ diet-ray study table3 --run runs/globo --seeds 5

    $ diet-ray study table4 --run runs/globo --candidates dcn,finalnet

    $ diet-ray study ranking --run runs/globo --seeds 2

    table3: methods x architectures. table4: parts of the method switched off. table5: seconds and memory.
    figure1: validation AUC along training. figure3: ratio x reference. ratio and reference: one of them
    alone. ranking: do candidates rank as after full training. Writes RUN/studies/NAME.parquet and NAME.json.
    """

    name: tyro.conf.Positional[Name]
    """Which study."""
    run: str
    """Directory of a run that has distilled all its blocks."""
    seeds: int = 3
    """How often each cell is repeated, with seeds 0, 1, ..."""
    candidates: str = ",".join(ARCHITECTURES)
    """Comma list of architectures, package.module:Class, or YAML files; ranking draws its own."""
    data: str | None = None
    """Directory of the prepared log, where it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; at least 1 is needed")
        data, run = absolute(self.data or log_of(self.run)), absolute(self.run)
        config = complete_run(run, PreparedLog.open(data))
        recipe = STUDIES[self.name]
        console.print(inspect.getdoc(recipe) or "", markup=False)
        candidates = load_candidates(listed(self.candidates, "candidates"))
        found = recipe(StudyContext(data, run, config, candidates, self.seeds, self.fit))
        write_table(Folder.at(run), f"studies/{self.name}", found)
        out = Console(width=None if sys.stdout.isatty() else 160)
        out.print(summary(found))
        if self.name == "ranking":
            agreed = ranking_agreement(found)
            write_table(Folder.at(run), "studies/ranking_agreement", agreed)
            out.print(plain(agreed, "Agreement with full training, test AUC"))


def summary(found: pd.DataFrame) -> Table:
    """Means over candidates and seeds of every figure, by variant and method."""
    by = [column for column in ("variant", "method") if column in found]
    figures = [c for c in ("auc", "logloss", "auc_before", "seconds_epoch", "seconds_history") if c in found]
    means = found.groupby(by, sort=False)[figures].mean().reset_index()
    return plain(means, "Means over candidates and seeds")


def plain(rows: pd.DataFrame, title: str) -> Table:
    shown = Table(*rows.columns, title=title)
    for row in rows.itertuples(index=False):
        shown.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    return shown


if __name__ == "__main__":
    sys.exit(run_command(Study, "diet-ray study"))

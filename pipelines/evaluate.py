"""Compare what candidates learn from the memory with what they learn from all history.

One file per finished cell: rerun after an interruption, only the missing cells run.
"""

import sys
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import ConfigError
from diet_ray.evaluation.cell import METHODS, Method
from diet_ray.models.registry import ARCHITECTURES
from diet_ray.storage import Folder
from pipelines.runtime.candidates import listed, load_candidates
from pipelines.runtime.command import run_command
from pipelines.runtime.comparison import run_cells, stored_cells
from pipelines.runtime.run_access import log_of, write_table


@dataclass(frozen=True)
class Evaluate:
    """Train candidates on the memory of a run and on baselines; compare them on the test block.

    $ diet-ray evaluate --run runs/globo

    $ diet-ray evaluate --run runs/globo --methods warmup,random,diet,full --candidates dcn,wukong --seeds 3

    $ diet-ray evaluate --run runs/globo --candidates my_package.models:MyNet,runs/globo/search/best.yaml

    Writes RUN/evaluation/results.parquet and results.json, one row per method, candidate and seed, of all
    cells that the run has by now.
    """

    run: str
    """Directory of a run that has distilled all its blocks."""
    methods: str = ",".join(METHODS)
    """Comma list of what candidates learn in place of history."""
    candidates: str = ",".join(ARCHITECTURES)
    """Comma list of architectures, package.module:Class, file.py:Class, or YAML files such as best.yaml."""
    seeds: int = 3
    """Number of seeds per cell: 0, 1, ..."""
    data: str | None = None
    """Directory of the prepared log, if it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        methods = tuple(listed(self.methods, "methods", METHODS))
        candidates = load_candidates(listed(self.candidates, "candidates"))
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; at least 1 is needed")
        results = evaluate(self.data or log_of(self.run), self.run, methods, candidates, self.seeds, self.fit)
        # A pipe has no width of its own; Rich would cut the spread off at 80 columns.
        Console(width=None if sys.stdout.isatty() else 160).print(results_table(results))


def evaluate(
    data: str,
    run: str,
    methods: tuple[Method, ...],
    candidates: dict[str, CandidateConfig],
    seeds: int,
    fit: FitConfig,
) -> pd.DataFrame:
    """`run_cells`; RUN/evaluation/results.parquet and .json hold every cell that the run has by now."""
    results = run_cells(data, run, methods, candidates, seeds, fit)
    folder = Folder.at(run)
    write_table(folder, layout.EVALUATION_RESULTS, stored_cells(folder))
    return results


def results_table(results: pd.DataFrame) -> Table:
    """Test AUC over LogLoss, mean ± standard deviation over seeds; last column: mean over candidates."""
    shown = Table(
        "method", show_lines=True, caption="test AUC over LogLoss, mean ± standard deviation over seeds"
    )
    for name in [*results["candidate"].unique(), "mean"]:
        shown.add_column(name, overflow="fold")
    for method in [m for m in METHODS if m in set(results["method"])]:
        own = results[results["method"] == method]
        cells = [_scores(own[own["candidate"] == c]) for c in results["candidate"].unique()]
        by_seed = own.groupby("seed")[["auc", "logloss"]].mean()
        shown.add_row(method, *cells, _scores(by_seed))
    return shown


def with_spread(values: pd.Series) -> str:
    """Mean ± standard deviation of the known values; the mean alone of one value, "" of none."""
    known = values.dropna()
    spread = f" ± {known.std():.4f}" if len(known) > 1 else ""
    return f"{known.mean():.4f}{spread}" if len(known) else ""


def _scores(rows: pd.DataFrame) -> str:
    return "\n".join(with_spread(rows[score]) for score in ("auc", "logloss"))


if __name__ == "__main__":
    sys.exit(run_command(Evaluate, "diet-ray evaluate"))

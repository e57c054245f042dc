"""Compare what candidates learn from the memory with what they learn from all history.

One file per finished cell: rerun after an interruption, only the missing cells run.
"""

import sys

import pandas as pd
from rich.console import Console
from rich.table import Table

from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import ConfigError
from diet_ray.evaluation.methods import METHODS, Method
from diet_ray.evaluation.verdicts.evidence import of_cells
from diet_ray.evaluation.verdicts.verdict import verdict
from diet_ray.runs.run import Run
from diet_ray.storage import Folder
from pipelines.options.evaluate import Evaluate
from pipelines.runtime.candidates import listed, load_candidates
from pipelines.runtime.command import run_command, say_next
from pipelines.runtime.comparison import run_cells, stored_cells
from pipelines.runtime.progress import console
from pipelines.runtime.run_access import log_of, write_table

MEMBER = "*"  # beside a candidate


def execute(options: Evaluate) -> None:
    methods = tuple(listed(options.methods, "methods", METHODS))
    candidates = load_candidates(listed(options.candidates, "candidates"))
    if options.seeds < 1:
        raise ConfigError(f"--seeds is {options.seeds}; at least 1 is needed")
    data = options.data or log_of(options.run)
    results = evaluate(data, options.run, methods, candidates, options.seeds, options.fit)
    Console().print(results_table(results))
    if evidence := of_cells(results, Run.read(options.run).stage):
        console.print(verdict(evidence).text, markup=False)
    say_next("search", "--run", options.run)


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
    caption = "test AUC over LogLoss, mean ± standard deviation over seeds"
    members = members_of_reference(results)
    if members:
        caption += f"\n{MEMBER} its architecture is one of the reference's"
    shown = Table("method", show_lines=True, caption=caption)
    for name in results["candidate"].unique():
        shown.add_column(f"{name} {MEMBER}" if name in members else name, overflow="fold")
    shown.add_column("mean", overflow="fold")
    for method in [m for m in METHODS if m in set(results["method"])]:
        own = results[results["method"] == method]
        cells = [_scores(own[own["candidate"] == c]) for c in results["candidate"].unique()]
        by_seed = own.groupby("seed")[["auc", "logloss"]].mean()
        shown.add_row(method, *cells, _scores(by_seed))
    return shown


def members_of_reference(results: pd.DataFrame) -> set[str]:
    """Candidates whose architecture is one of the reference's."""
    if "in_reference" not in results:  # results of an earlier version
        return set()
    return set(results.loc[results["in_reference"].astype(bool), "candidate"])


def with_spread(values: pd.Series) -> str:
    """Mean ± standard deviation of the known values; the mean alone of one value, "" of none."""
    known = values.dropna()
    spread = f" ± {known.std():.4f}" if len(known) > 1 else ""
    return f"{known.mean():.4f}{spread}" if len(known) else ""


def _scores(rows: pd.DataFrame) -> str:
    return "\n".join(with_spread(rows[score]) for score in ("auc", "logloss"))


if __name__ == "__main__":
    sys.exit(run_command(Evaluate, "diet-ray evaluate"))

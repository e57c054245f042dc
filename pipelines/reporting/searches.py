"""The section of a report about a search: what the best candidates score, and what that cost."""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from diet_ray import layout
from diet_ray.storage import Folder
from pipelines.reporting import charts
from pipelines.reporting.page import Part, Text, Value, chart, table

SHOWN = 10
# Columns of the results and their heads, each empty where nothing was trained fully.
FULLY = {
    "expected": "expected after full training",
    "confirmed_validation_auc": "confirmed",
    "confirmed_test_auc": "test AUC",
}


def searches(folder: Folder) -> list[str]:
    """Folders of the run that hold a search."""
    paths = folder.fs.glob(f"{folder.root}/*/{layout.SEARCH_RESULTS}.parquet")
    names = [path.rsplit("/", 2)[-2] for path in paths]
    return sorted(name for name in names if folder.exists(f"{name}/{layout.BEST_CANDIDATE}"))


def searched(trials: pd.DataFrame) -> Iterator[Part]:
    """The best trials in the order of the results, and the cost of all of them."""
    trials = quality_and_cost(trials)
    scored = trials[trials["quality"].notna()].reset_index(drop=True)
    states = ", ".join(f"{count} {state}" for state, count in trials["state"].value_counts().items())
    yield Text(f"{len(trials)} trials: {states}. {trials['seconds'].sum():,.0f} seconds of training in all.")
    rows: list[list[Value]] = []
    for row in scored.head(SHOWN).to_dict("records"):
        noise = "" if pd.isna(row["noise"]) else f" ± {row['noise']:.4f}"
        scores = [f"{row['quality']:.4f}{noise}", *(_auc(row.get(column, np.nan)) for column in FULLY)]
        rows.append([f"trial {row['number']}", row["model"], *scores, f"{row['cost']:,.3g}", row["detail"]])
    quality, cost = scored.attrs["quality"], scored.attrs["cost"]
    yield from table(["", "model", quality, *FULLY.values(), cost, "options"], rows)
    drawn = scored[scored["cost"] > 0]
    if len(drawn) > 1:
        noise = (
            " Bars: a standard error." if drawn["noise"].notna().any() else " One seed: no noise is known."
        )
        columns = ["number", "model", "cost", "quality", "low", "high", "detail"]
        yield chart(
            charts.search_chart(drawn[columns], cost, quality),
            f"Quality against cost, a dot per trial; dashed: what nothing cheaper beats.{noise}",
        )


def quality_and_cost(trials: pd.DataFrame) -> pd.DataFrame:
    """The results with columns quality, noise, low, high, cost and detail; `attrs` names quality and cost.

    A search before judges has its score in `objective`, the noise in `deviation` and the cost as a share of
    one full training; one on the memory alone has the validation AUC, and noise from seeds.
    """
    judged = "pieces" in trials and bool((trials["pieces"] > 0).any())
    found = trials.assign(
        quality=trials["objective"] if judged else trials["auc"],
        noise=trials["deviation"] if judged and "deviation" in trials else _noise_of_seeds(trials),
        cost=trials["cost"] if judged and "cost" in trials else trials["seconds"],
        detail=[_detail(*row) for row in zip(trials["candidate"], trials["learning_rate"], strict=True)],
    )
    found["noise"] = pd.to_numeric(found["noise"])
    found["low"], found["high"] = found["quality"] - found["noise"], found["quality"] + found["noise"]
    found.attrs = {
        "quality": "score by the judges" if judged else "validation AUC",
        "cost": "cost, in full trainings" if judged and "cost" in trials else "seconds of the trial",
    }
    return found


def _auc(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4f}"


def _noise_of_seeds(trials: pd.DataFrame) -> list[float]:
    """Standard error over seeds of each seed's best AUC; NaN of a single seed."""
    if "epoch_auc" not in trials:
        return [float("nan")] * len(trials)
    return [_standard_error(list(curves)) for curves in trials["epoch_auc"]]


def _standard_error(curves: list[list[float]]) -> float:
    best = [np.nanmax(np.asarray(curve, float)) for curve in curves if len(curve)]
    return float(np.std(best, ddof=1) / len(best) ** 0.5) if len(best) > 1 else float("nan")


def _detail(candidate: str, learning_rate: float) -> str:
    options = ", ".join(f"{key} {value}" for key, value in json.loads(candidate)["options"].items())
    rate = "" if pd.isna(learning_rate) else f"learning rate {learning_rate:.2g}"
    return ", ".join(part for part in (options, rate) if part)

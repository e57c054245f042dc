"""Candidates whose full training is known, and a score of theirs held against it.

What a search could buy and what it is held against are kept apart: a full training that a baseline or the
search itself pays for is one seed on the validation block, the truth is the mean of the other seeds.

Shape suffixes: C candidates, S seeds.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diet_ray.evaluation.agreement import clear_pairs, kendall, regret
from diet_ray.seeding import numpy_generator
from diet_ray.storage import Folder
from pipelines.truth import trainings

Array = NDArray[np.floating]

RESAMPLES = 500


class Known(NamedTuple):
    """Candidates with a full training, in one order."""

    names: list[str]
    table: pd.DataFrame  # a row per full training
    truth_C: Array  # mean over the seeds but the bought one, or of this where it is the only one
    bought: int  # seed of the full trainings that can be bought
    bought_C: Array  # AUC of these on the validation block
    error: float  # standard error of a difference of two candidates' truth; NaN with one seed
    full_rows: int  # that a full training learns

    @property
    def for_sale(self) -> pd.DataFrame:
        """The full trainings that can be bought, in the order of the names."""
        return self.table[self.table["seed"] == self.bought].set_index("candidate").loc[self.names]

    @property
    def architectures(self) -> list[str]:
        return [config["name"] for config in self.for_sale["config"]]


class Judged(NamedTuple):
    """A score of every candidate, and what it costs per candidate, in full trainings."""

    score_C: Array
    cost: float


def known(folder: Folder, day: str, seeds: int, bought: int = 0) -> Known:
    """The candidates that were trained with all of the first `seeds` seeds.

    Args:
        folder: of the truth experiment.
        day: "validation", or "test" where a choice has been made.
        seeds: how many.
        bought: the seed that is no truth.
    """
    table = pd.DataFrame(trainings(folder))
    table = table[table["seed"] < seeds]
    table["auc"] = [scores["auc"] for scores in table[day]]
    table["validated"] = [scores["auc"] for scores in table["validation"]]
    count = table.groupby("candidate", sort=False)["seed"].nunique()
    names = list(count[count == seeds].index)
    table = table[table["candidate"].isin(names)]

    def by_seed(column: str) -> Array:
        return table.pivot_table(index="candidate", columns="seed", values=column).loc[names].to_numpy()

    auc_CS = by_seed("auc")
    between = auc_CS.std(1, ddof=1) if seeds > 1 else np.array([np.nan])
    error = float(np.sqrt(2 * np.mean(between**2) / max(1, seeds - 1)))
    others = [seed for seed in range(seeds) if seed != bought] or [bought]
    bought_C = by_seed("validated")[:, bought]
    rows = int(table["rows"].iloc[0])
    return Known(names, table, auc_CS[:, others].mean(1), bought, bought_C, error, rows)


def measured(truth: Known, judge: str, score_C: Array, cost: float) -> dict[str, Any]:
    """A row of the table."""
    draw = numpy_generator(0, "judge table", judge)
    drawn = [draw.integers(len(score_C), size=len(score_C)) for _ in range(RESAMPLES)]
    # A judge that gives all the same score has no tau, and no resample of it has one.
    tied = not np.ptp(score_C)
    tau = [kendall(truth.truth_C[rows], score_C[rows]) for rows in drawn if not tied]
    low, high = np.nanquantile(tau, [0.025, 0.975]) if tau else (np.nan, np.nan)
    return {
        "judge": judge,
        "cost": cost,
        "tau": kendall(truth.truth_C, score_C),
        "tau_low": float(low),
        "tau_high": float(high),
        "clear": clear_pairs(truth.truth_C, score_C, truth.error),
        "regret": regret(truth.truth_C, score_C),
        "regret3": regret(truth.truth_C, score_C, 3),
        "candidates": len(score_C),
    }

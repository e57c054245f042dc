"""Sections of a report about cells: the comparison, and the studies."""

from collections.abc import Iterator
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from diet_ray.evaluation.agreement import FEWEST
from diet_ray.evaluation.methods import METHODS, REDUCED
from diet_ray.evaluation.verdicts.gaps import mean_gap
from diet_ray.evaluation.verdicts.verdict import Contrast
from pipelines.evaluate import MEMBER, members_of_reference, with_spread
from pipelines.reporting import charts
from pipelines.reporting.page import Part, Text, Value, chart, table
from pipelines.studies.ranking_table import ranking_agreement
from pipelines.studies.ratio_table import recommended_ratio

SPREAD = "Mean and standard deviation over seeds; LogLoss in small print."
CHARTED = (
    "full",
    "random",
    "newest",
    "kmeans",
    "el2n",
)  # cold and warmup are far behind: they would hide the rest
Parts = Iterator[Part]


def comparison(cells: pd.DataFrame) -> Parts:
    methods = _methods(cells)
    seeds = sorted(cells["seed"].unique())
    which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    yield Text(f"Test block, after the subsequent block; {which}. {SPREAD}")
    yield from _scores(cells, methods, "")
    if members_of_reference(cells):
        yield Text(
            f"{MEMBER} Its architecture is one of the reference's, whose tables every candidate inherits."
        )
    leads = _leads(cells, methods)
    charted = leads[leads["baseline"].isin(CHARTED)]
    if len(charted):
        yield chart(
            charts.lead_chart(charted),
            "Right of the dashed line the memory is ahead. Grey: a candidate and seed; bar: 95 % interval.",
        )
    yield from _lead_table(leads)
    drawn = [method for method in methods if method in (*CHARTED, "diet")]
    if drawn:
        yield chart(charts.cells_chart(cells, drawn), "Test AUC, a dot per seed.")


def before(cells: pd.DataFrame) -> Parts:
    methods = [method for method in _methods(cells) if method in (*REDUCED, "full")]
    if methods:
        yield Text("Test block, before the candidates saw the subsequent block.")
        yield from _scores(cells, methods, "_before")


def _methods(cells: pd.DataFrame) -> list[str]:
    return [method for method in METHODS if method in set(cells["method"])]


def _scores(cells: pd.DataFrame, methods: list[str], suffix: str) -> Parts:
    """A row per method, a column per candidate and their mean."""
    candidates, members = list(cells["candidate"].unique()), members_of_reference(cells)
    rows: list[list[Value]] = []
    for method in methods:
        mine = cells[cells["method"] == method]
        by_seed = mine.groupby("seed")[[f"auc{suffix}", f"logloss{suffix}"]].mean()
        groups = [mine[mine["candidate"] == candidate] for candidate in candidates]
        rows.append([method, *(_score(group, suffix) for group in groups), _score(by_seed, suffix)])
    marked = [f"{name} {MEMBER}" if name in members else name for name in candidates]
    yield from table(["method", *marked, "mean"], rows)


def _score(rows: pd.DataFrame, suffix: str = "") -> tuple[str, str]:
    return with_spread(rows[f"auc{suffix}"]), with_spread(rows[f"logloss{suffix}"])


def _leads(cells: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """DIET minus each baseline, cell by cell, with the mean and its interval in every row."""
    columns = ["baseline", "candidate", "seed", "lead", "mean", "low", "high", "size"]
    wide = cells.pivot_table(index=["candidate", "seed"], columns="method", values="auc")
    tables = []
    for baseline in methods if "diet" in wide else []:
        if baseline == "diet" or baseline not in wide:
            continue
        lead = (wide["diet"] - wide[baseline]).dropna().rename("lead").reset_index()
        if len(lead):
            # Any name will do: the interval is the same for every control.
            gap = Contrast.of("random", float("nan"), mean_gap(lead["lead"].to_numpy()))
            margin = np.nan if gap.margin is None else gap.margin
            own: dict[str, Any] = {
                "mean": gap.gap,
                "low": gap.gap - margin,
                "high": gap.gap + margin,
                "size": gap.size,
            }
            tables.append(lead.assign(baseline=baseline, **own))
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _lead_table(leads: pd.DataFrame) -> Parts:
    rows = [
        [baseline, own["size"].iloc[0], f"{(own['lead'] > 0).sum()} of {len(own)}"]
        for baseline, own in leads.groupby("baseline", sort=False)
    ]
    yield from table(["DIET minus", "test AUC ± standard error", "ahead in"], rows)


def ranking(cells: pd.DataFrame) -> Parts:
    methods = [method for method in _methods(cells) if method != "full"]
    scores = cells.pivot_table(index="candidate", columns="method", values="auc").dropna()
    if "full" not in scores or len(scores) < FEWEST:
        return
    agreed = ranking_agreement(cells[cells["candidate"].isin(scores.index)])
    yield Text(
        "Does a cheap score rank candidates as training on all history does? Test AUC, means over seeds, "
        "95 % bootstrap intervals over candidates; time is of a whole cell."
    )
    for _, part in agreed.groupby("among", sort=False):
        yield from _agreement_table(part)
    first = [*(m for m in ("diet",) if m in methods), *(m for m in methods if m != "diet")]
    yield chart(charts.ranking_chart(scores, first), "A dot per candidate, 1 the best.")


def _agreement_table(agreed: pd.DataFrame) -> Parts:
    rows: list[list[Value]] = []
    for row in agreed.to_dict("records"):
        interval: list[Value] = ["", "", ""]
        if row["method"] != "full":
            interval = [_interval(row, name, digits) for name, digits in (("kendall", 2), ("spearman", 2))]
            interval.append(_interval(row, "regret", 4))
        name = "full, another seed" if row["method"] == "full" else row["method"]
        single = "" if isnan(row["kendall_single"]) else f"{row['kendall_single']:.2f}"
        rows.append([name, *interval, single, f"{row['cost_ratio']:.1f}"])
    head = ["scores of", "Kendall tau", "Spearman", "regret (AUC)", "tau of single seeds", "full / its time"]
    weak = "the weak ones left out" if agreed["among"].iloc[0] == "good" else "all"
    yield from table(head, rows, f"{agreed['candidates'].max():.0f} candidates, {weak}")


def _interval(row: dict[Any, Any], name: str, digits: int) -> tuple[str, str]:
    return f"{row[name]:.{digits}f}", f"{row[f'{name}_low']:.{digits}f} to {row[f'{name}_high']:.{digits}f}"


def ratio(cells: pd.DataFrame) -> Parts:
    if choice := recommended_ratio(cells):
        yield Text(choice.text)
    yield from figure3(cells)


def figure3(cells: pd.DataFrame) -> Parts:
    spread = "bars: deviation over seeds." if cells["seed"].nunique() > 1 else "one seed: no noise is known."
    yield chart(charts.ratio_chart(cells), f"Mean over candidates; {spread}")


def references(cells: pd.DataFrame) -> Parts:
    yield Text(f"By the reference that labels the rows and whose tables candidates inherit. {SPREAD}")
    yield from _variants(cells)


def ablation(cells: pd.DataFrame) -> Parts:
    parts = (
        "MF memory fusion, TS target selection, MS memory selection; realignment: old rows follow the tables."
    )
    yield Text(f"{parts} {SPREAD}")
    yield from _variants(cells)


def _variants(cells: pd.DataFrame) -> Parts:
    """A row per variant of the run and method, a column per candidate and their mean."""
    candidates = list(cells["candidate"].unique())
    rows: list[list[Value]] = []
    for (variant, method), mine in cells.groupby(["variant", "method"], sort=False):
        by_seed = mine.groupby("seed")[["auc", "logloss"]].mean()
        groups = [mine[mine["candidate"] == candidate] for candidate in candidates]
        rows.append([str(variant), str(method), *(_score(group) for group in groups), _score(by_seed)])
    yield from table(["variant", "method", *candidates, "mean"], rows)


def trajectories(points: pd.DataFrame) -> Parts:
    yield chart(
        charts.trajectory_chart(points),
        "A line per candidate and seed. Reduced rows start under the reference's tables, full training from "
        "nothing.",
    )


def cost(rows: pd.DataFrame) -> Parts:
    means = rows.groupby(["method", "candidate"], sort=False).mean(numeric_only=True).reset_index()
    shown: list[list[Value]] = [
        [
            row["method"],
            row["candidate"],
            "" if pd.isna(row["seconds_epoch"]) else f"{row['seconds_epoch']:.1f}",
            f"{row['seconds_history']:.1f}",
            "" if pd.isna(row["peak_bytes"]) else f"{row['peak_bytes'] / 1e6:,.0f}",
        ]
        for row in means.to_dict("records")
    ]
    yield from table(["", "model", "seconds per epoch", "seconds in all", "peak memory, MB"], shown)

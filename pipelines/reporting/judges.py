"""The page on judges of a search: what each costs, and how it ranks beside full training."""

from collections.abc import Iterator
from typing import Any

import altair as alt
import pandas as pd

from pipelines.reporting.charts import COLOURS, NEUTRAL, Drawing, layered, styled
from pipelines.reporting.page import Part, Section, Text, chart, page, table

HEAD = ["judge", "cost", "tau", "95 %", "clear pairs", "regret", "of the best of 3"]
KINDS = ("judge", "baseline")


def judge_page(found: pd.DataFrame, scores: pd.DataFrame, about: list[str], footer: str) -> str:
    """The page of a truth experiment.

    Args:
        found: a row per judge and baseline (judge_table.judge_table).
        scores: columns candidate, full, error, and one per judge (judge_table.judged_scores).
        about: sentences on log, day and seeds.
        footer: date and versions.
    """
    judges = [name for name in scores.columns if name not in ("candidate", "full", "error")]
    # Parts of judges and several together are named after them.
    kind = [KINDS[0] if row.startswith(tuple(judges)) else KINDS[1] for row in found["judge"]]
    sections = [
        Section("Cost against quality", list(_comparison(found.assign(kind=kind)))),
        Section("Candidate by candidate", list(_candidates(scores, judges))),
    ]
    return page("Judges against full training", about, sections, footer)


def _comparison(found: pd.DataFrame) -> Iterator[Part]:
    yield Text(
        "Cost is in full trainings of a mean candidate, per candidate: 0.1 is a tenth of training all. "
        "Regret is the AUC that is lost by taking the judge's first, or the best of its first three after "
        "training these fully, which costs three trainings more."
    )
    yield chart(_tau_chart(found), "Kendall tau with full training; bars: 95 % over candidates.")
    yield chart(
        _regret_chart(found), "Regret of the first (filled) and of the best of the first three (ring)."
    )
    rows = [
        [
            row["judge"],
            f"{row['cost']:.2f}",
            f"{row['tau']:.2f}",
            f"{row['tau_low']:.2f} to {row['tau_high']:.2f}",
            "" if pd.isna(row["clear"]) else f"{row['clear']:.2f}",
            f"{row['regret']:.4f}",
            f"{row['regret3']:.4f}",
        ]
        for row in found.to_dict("records")
    ]
    yield from table(HEAD, rows)


def _candidates(scores: pd.DataFrame, judges: list[str]) -> Iterator[Part]:
    if judges:
        yield chart(
            _score_chart(scores, judges),
            "A dot per candidate; bars: standard error of its full trainings, where several seeds tell.",
        )


def _cost() -> alt.X:
    return alt.X("cost:Q", title="cost, in full trainings per candidate", scale=alt.Scale(type="log"))


def _colour() -> alt.Color:
    colours = alt.Scale(domain=list(KINDS), range=[COLOURS["diet"], NEUTRAL])
    return alt.Color("kind:N", scale=colours, title=None)


def _tau_chart(found: pd.DataFrame) -> Drawing:
    tips = ["judge", alt.Tooltip("cost", format=".2f"), alt.Tooltip("tau", format=".2f")]
    base = alt.Chart(found).encode(x=_cost(), color=_colour())
    bars = base.mark_rule(opacity=0.5).encode(y=alt.Y("tau_low:Q", title="Kendall tau"), y2="tau_high:Q")
    dots = base.mark_point(filled=True, size=60).encode(y="tau:Q", tooltip=tips)
    return styled(layered(bars, dots), KINDS)


def _regret_chart(found: pd.DataFrame) -> Drawing:
    y = alt.Y("regret:Q", title="regret, AUC", axis=alt.Axis(format=".3f"))
    tips: list[Any] = ["judge", *(alt.Tooltip(name, format=".4f") for name in ("regret", "regret3"))]
    base = alt.Chart(found).encode(x=_cost(), color=_colour(), tooltip=tips)
    first = base.mark_point(filled=True, size=60).encode(y=y)
    third = base.mark_point(filled=False, size=60).encode(y=alt.Y("regret3:Q"))
    return styled(layered(first, third), KINDS)


def _score_chart(scores: pd.DataFrame, judges: list[str]) -> Drawing:
    rows = scores.melt(["candidate", "full", "error"], judges, "judge", "score")
    rows = rows.assign(architecture=rows["candidate"].str.rsplit("-", n=1).str[0])
    rows["low"], rows["high"] = rows["full"] - rows["error"], rows["full"] + rows["error"]
    choice = alt.param(
        "judge", value=judges[0], bind=alt.binding_select(options=list(judges), name="Judge: ")
    )
    near = alt.Scale(zero=False)
    tips = ["candidate", *(alt.Tooltip(name, format=".4f") for name in ("full", "score"))]
    base = alt.Chart(rows).encode(
        y=alt.Y("score:Q", title="AUC by the judge", scale=near, axis=alt.Axis(format=".3f")),
        color=alt.Color("architecture:N"),
    )
    full = alt.X("full:Q", title="AUC after full training", scale=near, axis=alt.Axis(format=".3f"))
    dots = base.mark_point(filled=True, size=60).encode(x=full, tooltip=tips)
    bars = base.mark_rule(opacity=0.4).encode(x=alt.X("low:Q", scale=near), x2="high:Q")
    picked = layered(bars, dots).transform_filter("datum.judge == judge").add_params(choice)
    return styled(picked, rows["architecture"].unique(), 300)

"""Charts of a report as Vega-Lite, each as wide as its place in the page."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from diet_ray.runs.metrics import StageSeconds
from pipelines.studies.ratio_table import ratio_of

# Readable on white and on black.
COLOURS = {
    "full": "#7a7a74",
    "diet": "#d9583b",
    "newest": "#4f9d9d",
    "random": "#4a90c2",
    "kmeans": "#6aa84f",
    "el2n": "#a478c4",
    "warmup": "#c99a2e",
    "cold": "#9aa0a6",
}
OTHER = ["#d9583b", "#4a90c2", "#6aa84f", "#c99a2e", "#a478c4", "#4f9d9d", "#d98ba0", "#7a7a74"]
NEUTRAL = "#8a8a85"
PARTS = ("train", "score", "distill")
ROW = 30  # pixels of a line of a chart with names on its left
HEIGHT = 230
SHORT = 11  # characters of a name, three of which stand side by side on a phone
MANY = 40  # stages from which bars become an area
ORIGINS = 8  # shares of a memory that a chart tells apart
Drawing = alt.Chart | alt.LayerChart


def styled(drawing: Drawing, names: Iterable[str] = (), height: int = HEIGHT) -> Drawing:
    """As wide as the page, with a legend of `names` above that fits a phone."""
    columns = 3 if max(map(len, map(str, names)), default=0) <= SHORT else 2
    drawing = drawing.properties(
        width="container",
        height=height,
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
    )
    return (
        drawing.configure(background="transparent", padding=2, font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", labelLimit=140)
        .configure_axisX(tickCount=5, labelOverlap=True, labelFlush=True, labelSeparation=8)
        .configure_axisY(tickCount=5)
        .configure_legend(
            orient="top",
            title=None,
            columns=columns,
            labelFontSize=11,
            symbolSize=70,
            labelLimit=120,
            offset=4,
        )
        .configure_range(category=OTHER)
    )


def _auc(name: str, title: str, **options: Any) -> alt.X | alt.Y:
    kind = options.pop("kind", alt.Y)
    made: alt.X | alt.Y = kind(
        f"{name}:Q",
        title=title,
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(format=".4f"),
        **options,
    )
    return made


def _tip(name: str, title: str | None = None, form: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(name, title=title or name, format=form or alt.Undefined)


def layered(*layers: alt.Chart) -> alt.LayerChart:
    """Layers, one on the other."""
    return cast(alt.LayerChart, alt.layer(*layers))  # none of them has facets


def lead_chart(leads: pd.DataFrame) -> Drawing:
    """The lead of DIET over each baseline: a dot per cell, the mean, and its 95 % interval.

    leads: columns baseline, candidate, seed, lead, mean, low, high; in the order in which they are shown.
    """
    order = list(dict.fromkeys(leads["baseline"]))
    y = alt.Y("baseline:N", sort=order, title=None)
    x = alt.X("lead:Q", title="AUC of the memory minus AUC of the other", axis=alt.Axis(format="+.3f"))
    cells = alt.Chart(leads).mark_circle(size=30, opacity=0.8, color=NEUTRAL)
    cells = cells.encode(y=y, x=x, tooltip=["baseline", "candidate", "seed", _tip("lead", form="+.4f")])
    means = leads.drop_duplicates("baseline")
    tips: list[Any] = ["baseline", *(_tip(name, form="+.4f") for name in ("mean", "low", "high"))]
    bars = alt.Chart(means).mark_rule(strokeWidth=3, color=COLOURS["diet"])
    bars = bars.encode(y=y, x=alt.X("low:Q", title=""), x2="high:Q", tooltip=tips)
    dots = alt.Chart(means).mark_point(filled=True, size=90, opacity=1, color=COLOURS["diet"])
    dots = dots.encode(y=y, x=alt.X("mean:Q", title=""), tooltip=tips)
    zero = alt.Chart(pd.DataFrame({"at": [0]})).mark_rule(strokeDash=[4, 3], color=NEUTRAL).encode(x="at:Q")
    return styled(layered(zero, cells, bars, dots), height=60 + ROW * len(order))


def cells_chart(cells: pd.DataFrame, methods: Sequence[str]) -> Drawing:
    """Test AUC of every cell: a line per method, a colour per candidate, a dot per seed."""
    rows = cells[cells["method"].isin(methods)][["method", "candidate", "seed", "auc"]]
    tips = ["method", "candidate", "seed", _tip("auc", "test AUC", ".4f")]
    drawing = alt.Chart(rows).mark_point(filled=True, size=45, opacity=0.8)
    drawing = drawing.encode(
        y=alt.Y("method:N", sort=list(methods), title=None),
        yOffset=alt.YOffset("candidate:N"),
        x=_auc("auc", "test AUC", kind=alt.X),
        color=alt.Color("candidate:N"),
        tooltip=tips,
    )
    names = rows["candidate"].unique()
    return styled(drawing, names, 90 + max(ROW, 9 * len(names)) * len(methods))


def ratio_chart(cells: pd.DataFrame) -> Drawing:
    """Test AUC against the share of rows kept: mean over candidates, its deviation over seeds."""
    cells = cells.assign(ratio=100 * ratio_of(cells["variant"]))
    cells["line"] = (cells["method"] + " " + cells["variant"].str.rpartition(" ")[0]).str.strip()
    by_seed = cells.groupby(["line", "ratio", "seed"])["auc"].mean()
    rows = by_seed.groupby(["line", "ratio"]).agg(["mean", "std"]).reset_index()
    rows["low"], rows["high"] = rows["mean"] - rows["std"], rows["mean"] + rows["std"]
    shown = sorted(rows["ratio"].unique())
    x = alt.X(
        "ratio:Q",
        title="rows kept, % of history",
        scale=alt.Scale(type="log", nice=False, padding=16),
        axis=alt.Axis(values=shown, format="~g"),
    )
    tips: list[Any] = [
        "line",
        _tip("ratio", "% kept", "~g"),
        _tip("mean", "test AUC", ".4f"),
        _tip("std", form=".4f"),
    ]
    base = alt.Chart(rows).encode(x=x, color=alt.Color("line:N", scale=_colours(rows["line"])), tooltip=tips)
    bars = base.mark_rule().encode(y=_auc("low", "test AUC"), y2="high:Q")
    lines = base.mark_line(point=True).encode(y=_auc("mean", "test AUC"))
    drawn = layered(bars, lines) if rows["std"].notna().any() else lines
    return styled(drawn, rows["line"].unique())


def ranking_chart(scores: pd.DataFrame, methods: Sequence[str]) -> Drawing:
    """Each candidate's rank by a method against its rank by full training; the reader picks the method.

    Ranks of test AUC: a few weak candidates would press the AUCs of all others into a corner.
    """
    ranks = scores.rank(ascending=False).reset_index()
    rows = ranks.melt(["candidate", "full"], list(methods), "method", "rank")
    choice = alt.param(
        "method", value=methods[0], bind=alt.binding_select(options=list(methods), name="Method: ")
    )
    scale = alt.Scale(domain=[0.5, len(scores) + 0.5], nice=False)
    y = alt.Y("rank:Q", title="rank by the method", scale=scale)

    def x(name: str) -> alt.X:
        return alt.X(f"{name}:Q", title="rank after full training", scale=scale)

    ends = pd.DataFrame({"rank": [1, len(scores)]})
    line = alt.Chart(ends).mark_line(color=NEUTRAL, strokeDash=[4, 3]).encode(x=x("rank"), y=y)
    dots = alt.Chart(rows).mark_point(filled=True, size=60, color=COLOURS["diet"])
    dots = dots.encode(x=x("full"), y=y, tooltip=["candidate", "method", "full", "rank"])
    picked = dots.transform_filter("datum.method == method").add_params(choice)
    return styled(layered(line, picked), height=300)


def trajectory_chart(points: pd.DataFrame) -> Drawing:
    """Validation AUC along training, a line per candidate and seed."""
    columns = ["method", "candidate", "seed", "steps", "auc"]
    drawing = alt.Chart(points[columns]).mark_line(opacity=0.8, strokeWidth=2)
    drawing = drawing.encode(
        x=alt.X("steps:Q", title="steps of the optimiser", scale=alt.Scale(type="log")),
        y=_auc("auc", "validation AUC"),
        color=alt.Color("method:N", scale=_colours(points["method"])),
        detail=["candidate:N", "seed:N"],
        tooltip=[*columns[:4], _tip("auc", "validation AUC", ".4f")],
    )
    return styled(drawing)


def search_chart(trials: pd.DataFrame, cost: str, quality: str) -> Drawing:
    """Quality of each trial against its cost, with its noise, and the trials that nothing cheaper beats.

    trials: columns number, model, cost, quality, low and high (NaN without noise), detail.
    """
    x = alt.X("cost:Q", title=cost, scale=alt.Scale(type="log"))
    tips = [
        _tip("number", "trial"),
        "model",
        _tip("cost", form=",.3~g"),
        _tip("quality", form=".4f"),
        "detail",
    ]
    base = alt.Chart(trials).encode(x=x, color=alt.Color("model:N"))
    dots = base.mark_point(filled=True, size=70, opacity=0.9).encode(y=_auc("quality", quality), tooltip=tips)
    front = trials.iloc[pareto_front(list(trials["cost"]), list(trials["quality"]))]
    steps = alt.Chart(front).mark_line(interpolate="step-after", color=NEUTRAL, strokeDash=[4, 3])
    layers = [steps.encode(x=x, y=_auc("quality", quality)), dots]
    if trials["low"].notna().any():
        known = trials[trials["low"].notna()]
        bars = alt.Chart(known).mark_rule().encode(x=x, color=alt.Color("model:N"))
        layers.insert(1, bars.encode(y=_auc("low", quality), y2="high:Q"))
    return styled(layered(*layers), trials["model"].unique(), 280)


def line_chart(rows: pd.DataFrame, title: str, form: str = ",.4~g", *, zero: bool = False) -> Drawing:
    """Values over the stages: a line per name, with dots where it has few.

    rows: columns stage, name, value. zero: whether the axis begins at 0.
    """
    names = list(dict.fromkeys(rows["name"]))
    drawing = alt.Chart(rows).encode(
        x=_stage(),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=zero), axis=alt.Axis(format=form)),
        color=alt.Color("name:N", sort=names, legend=_legend(names)),
        tooltip=["stage", "name", _tip("value", title, form)],
    )
    lines = drawing.mark_line(strokeWidth=1.5)
    sparse = [name for name in names if (rows["name"] == name).sum() <= MANY]
    if not sparse:
        return styled(lines, names)
    dots = drawing.mark_circle(size=40, opacity=1).transform_filter(alt.FieldOneOfPredicate("name", sparse))
    return styled(layered(lines, dots), names)


def area_chart(rows: pd.DataFrame, title: str) -> Drawing:
    """Values over the stages on top of each other: bars of few stages, an area of many.

    rows: columns stage, name, value.
    """
    order = list(dict.fromkeys(rows["name"]))
    few = rows["stage"].nunique() <= MANY
    drawing = alt.Chart(rows.assign(place=rows["name"].map({name: n for n, name in enumerate(order)})))
    marked = drawing.mark_bar() if few else drawing.mark_area(interpolate="step", opacity=0.9)
    return styled(
        marked.encode(
            x=alt.X("stage:O", title="stage", axis=alt.Axis(labelAngle=0)) if few else _stage(),
            y=alt.Y("value:Q", title=title, stack="zero"),
            color=alt.Color("name:N", sort=order, legend=_legend(order)),
            order="place:Q",
            tooltip=["stage", "name", _tip("value", title, ",.4~g")],
        ),
        order,
    )


def composition_chart(by_stage: Sequence[dict[int, int]]) -> Drawing:
    """Rows of each memory by the stages whose blocks they were selected from."""
    stages = len(by_stage)
    edges = np.unique(np.linspace(0, stages, min(stages, ORIGINS) + 1).round().astype(int))
    rows = []
    for first, last in zip(edges[:-1] + 1, edges[1:], strict=True):
        name = f"{first}" if first == last else f"{first}-{last}"
        for stage, memory in enumerate(by_stage, 1):
            count = sum(memory.get(int(origin), 0) for origin in range(first, last + 1))
            rows.append({"stage": stage, "name": name, "value": count})
    return area_chart(pd.DataFrame(rows), "rows, by stage of origin")


def timeline_chart(seconds: Sequence[StageSeconds]) -> Drawing:
    """Seconds of each part of every stage; training runs beside the parts of the stage before."""
    rows = [
        {"stage": stage, "name": part, "value": getattr(own, part)}
        for stage, own in enumerate(seconds, 1)
        for part in PARTS
    ]
    return area_chart(pd.DataFrame(rows), "seconds")


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Numbers of those that nothing cheaper or as cheap is better than, the cheapest first."""
    order = sorted(range(len(cost)), key=lambda n: (cost[n], -quality[n]))
    front: list[int] = []
    for number in order:
        if not front or quality[number] > quality[front[-1]]:
            front.append(number)
    return front


def _stage() -> alt.X:
    return alt.X(
        "stage:Q", title="stage", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False)
    )


def _legend(names: Sequence[str]) -> alt.Legend | None:
    """None where there is nothing to tell apart."""
    return alt.Legend() if len(names) > 1 else None


def _colours(names: pd.Series) -> alt.Scale:
    """The colour of each method, the same in every chart."""
    domain = list(dict.fromkeys(names))
    return alt.Scale(domain=domain, range=[COLOURS.get(str(n), OTHER[i % 8]) for i, n in enumerate(domain)])

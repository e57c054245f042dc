"""Charts of a report, as SVG text that stands in the page itself."""

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diet_ray.runs.metrics import StageSeconds

COLOURS = {
    "full": "#1b1b1b",
    "diet": "#c8452d",
    "newest": "#5f6b6d",
    "random": "#3b7ea1",
    "kmeans": "#6a9f58",
    "el2n": "#9b6ba8",
    "warmup": "#c79a2b",
    "cold": "#9aa0a6",
}
OTHER = ("#c8452d", "#3b7ea1", "#6a9f58", "#c79a2b", "#9b6ba8", "#5f6b6d", "#1b1b1b", "#d98ba0")
PARTS = ("train", "score", "distill")
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e2",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: small, and a browser's search finds it
    "svg.hashsalt": "diet_ray",
}


Chart = ParamSpec("Chart")


def _styled(draw: Callable[Chart, Figure]) -> Callable[Chart, str]:
    """Draw in our style; the figure as SVG."""

    @wraps(draw)
    def styled(*args: Chart.args, **named: Chart.kwargs) -> str:
        with matplotlib.rc_context(STYLE):
            out = io.StringIO()
            draw(*args, **named).savefig(out, format="svg", metadata={"Date": None})
        text = out.getvalue()
        return text[text.index("<svg") :]

    return styled


def _figure(width: float = 7.0, height: float = 3.4) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def _colour(name: str, number: int) -> str:
    return COLOURS.get(name, OTHER[number % len(OTHER)])


@_styled
def cells_chart(cells: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Test AUC of every cell: a column per candidate, a colour per method, a dot per seed, bar: mean."""
    figure, axes = _figure()
    candidates = list(cells["candidate"].unique())
    for number, method in enumerate(methods):
        offset = (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
        for column, candidate in enumerate(candidates):
            aucs = cells[(cells["method"] == method) & (cells["candidate"] == candidate)]["auc"]
            label = method if column == 0 else None
            place = [column + offset] * len(aucs)
            axes.scatter(place, aucs, s=14, color=_colour(method, number), label=label)
            if len(aucs):
                axes.hlines(aucs.mean(), place[0] - 0.05, place[0] + 0.05, color=_colour(method, number))
    axes.set_xticks(range(len(candidates)), candidates)
    axes.set_ylabel("test AUC")
    figure.legend(loc="outside upper center", ncols=len(methods), handletextpad=0.1, columnspacing=1)
    return figure


@_styled
def ratio_chart(cells: pd.DataFrame) -> Figure:
    """Test AUC against the share of rows kept: mean over candidates, its deviation over seeds."""
    figure, axes = _figure()
    cells = cells.assign(ratio=cells["variant"].str.split().str[-1].str.rstrip("%").astype(float))
    cells["line"] = cells["method"] + " " + cells["variant"].str.rpartition(" ")[0]
    for number, (line, mine) in enumerate(cells.groupby("line")):
        by_seed = mine.groupby(["ratio", "seed"])["auc"].mean()
        by_ratio = by_seed.groupby("ratio").agg(["mean", "std"])
        axes.errorbar(
            by_ratio.index,
            by_ratio["mean"],
            by_ratio["std"],
            marker="o",
            capsize=2,
            color=_colour(str(line).strip(), number),
            label=line,
        )
    axes.set_xscale("log")
    shown = sorted(cells["ratio"].unique())
    axes.set_xticks(shown, [f"{value:g}" for value in shown])
    axes.minorticks_off()
    axes.set_xlabel("rows kept, % of history")
    axes.set_ylabel("test AUC")
    axes.legend()
    return figure


@_styled
def ranking_chart(scores: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Each candidate's rank by a method against its rank by full training, a panel per method.

    Ranks of test AUC: a few weak candidates would press the AUCs of all others into a corner.
    """
    ranks = scores.rank(ascending=False)
    across = min(len(methods), 3)
    down = -(-len(methods) // across)
    figure = Figure((7.0, 2.6 * down), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for number, (axes, method) in enumerate(zip(panels, methods, strict=False)):
        axes.axline((1, 1), slope=1, color="0.8", linewidth=1, zorder=0)
        axes.scatter(ranks["full"], ranks[method], s=16, color=_colour(method, number))
        axes.set_title(method, fontsize=10)
        axes.locator_params(nbins=4, integer=True)
        axes.tick_params(labelbottom=True)
    for axes in panels[len(methods) :]:
        axes.set_axis_off()
    figure.supxlabel("rank after full training", fontsize=10)
    figure.supylabel("rank by this method", fontsize=10)
    return figure


@_styled
def trajectory_chart(points: pd.DataFrame) -> Figure:
    """Validation AUC along training, mean over candidates and seeds at the same number of steps."""
    figure, axes = _figure()
    for number, (method, mine) in enumerate(points.groupby("method")):
        for _, curve in mine.groupby(["candidate", "seed"]):
            axes.plot(curve["steps"], curve["auc"], color=_colour(str(method), number), lw=0.8, alpha=0.5)
        axes.plot([], [], color=_colour(str(method), number), label=method)
    axes.set_xscale("log")
    axes.set_xlabel("steps of the optimiser")
    axes.set_ylabel("validation AUC")
    axes.legend()
    return figure


@_styled
def composition_chart(by_stage: Sequence[dict[int, int]]) -> Figure:
    """Rows of each memory by the stage whose block they were selected from."""
    figure, axes = _figure(height=2.8)
    stages = np.arange(1, len(by_stage) + 1)
    below = np.zeros(len(stages))
    for number, origin in enumerate(stages):
        rows = np.array([memory.get(int(origin), 0) for memory in by_stage])
        axes.bar(
            stages, rows, bottom=below, color=OTHER[number % len(OTHER)], label=f"stage {origin}", width=0.6
        )
        below += rows
    axes.set_xticks(stages, [f"memory {stage}" for stage in stages])
    axes.set_ylabel("rows")
    axes.legend(title="selected from", loc="upper left")
    return figure


@_styled
def timeline_chart(seconds: Sequence[StageSeconds]) -> Figure:
    """Seconds of each part of every stage; training runs beside the parts of the stage before."""
    figure, axes = _figure(height=1.2 + 0.35 * len(seconds))
    for number, part in enumerate(PARTS):
        values = [getattr(stage, part) for stage in seconds]
        before = [sum(getattr(stage, earlier) for earlier in PARTS[:number]) for stage in seconds]
        axes.barh(range(len(seconds)), values, left=before, color=OTHER[number], label=part, height=0.6)
    axes.set_yticks(range(len(seconds)), [f"stage {stage + 1}" for stage in range(len(seconds))])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    figure.legend(loc="outside upper center", ncols=len(PARTS))
    return figure


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Numbers of those that nothing cheaper or as cheap is better than, the cheapest first."""
    order = sorted(range(len(cost)), key=lambda n: (cost[n], -quality[n]))
    front: list[int] = []
    for number in order:
        if not front or quality[number] > quality[front[-1]]:
            front.append(number)
    return front


@_styled
def pareto_chart(trials: pd.DataFrame) -> Figure:
    """Validation AUC of each trial against its seconds, and the Pareto front."""
    figure, axes = _figure()
    for number, (model, mine) in enumerate(trials.groupby("model")):
        axes.scatter(mine["seconds"], mine["auc"], s=18, color=OTHER[number % len(OTHER)], label=model)
    front = trials.iloc[pareto_front(list(trials["seconds"]), list(trials["auc"]))]
    axes.step(front["seconds"], front["auc"], where="post", color="#1b1b1b", lw=0.9, label="Pareto front")
    axes.set_xscale("log")
    axes.set_xlabel("seconds of the trial")
    axes.set_ylabel("validation AUC")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@_styled
def parallel_chart(trials: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Parallel coordinates: a line per trial, the darker the better."""
    figure, axes = _figure()
    axes.grid(False)
    quality = trials["auc"].rank(pct=True)
    scaled = {}
    for place, column in enumerate(columns):
        values = trials[column]
        if not pd.api.types.is_numeric_dtype(values):
            names = sorted(values.unique())
            scaled[column] = values.map({name: i / max(1, len(names) - 1) for i, name in enumerate(names)})
            for name in names:
                axes.text(place, scaled[column][values == name].iloc[0], f" {name}", fontsize=8, zorder=3)
        else:
            numbers = np.log10(values) if column in ("learning_rate", "parameters") else values
            low, high = numbers.min(), numbers.max()
            scaled[column] = (numbers - low) / ((high - low) or 1)
            for at, value in ((0, values.min()), (1, values.max())):
                axes.text(place, at, f" {value:.3g}", fontsize=8, va="top" if at == 0 else "bottom", zorder=3)
    lines = pd.DataFrame(scaled)
    for strength, line in zip(quality, lines.to_numpy(), strict=True):
        axes.plot(
            range(len(columns)), line, color=matplotlib.colormaps["YlOrRd"](0.15 + 0.85 * strength), lw=1.2
        )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.6)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    for place in range(len(columns)):
        axes.axvline(place, color="#bbbbb5", lw=0.8)
    return figure

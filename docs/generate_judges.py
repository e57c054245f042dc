"""Draws docs/judges.svg from the tables of `diet-ray judge` in docs/truth/judges.json: the test block.

$ python docs/generate_judges.py
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
LOGS = {
    "globo": "Globo",
    "globo-earlier": "Globo, a block earlier",
    "drift-gradual": "drift, gradual",
    "drift-recurring": "drift, recurring",
    "drift-churn": "drift, churn",
}
HALF = "cold, 4 of 8 pieces"
# What is joined by a line: name, rows of the table from cheap to dear, colour, marker.
SERIES: list[tuple[str, list[str], str, str]] = [
    (
        "half, then 3, 5, 8 trained",
        [HALF, *(f"{HALF}, then {count} trained" for count in (3, 5, 8))],
        "#0b7285",
        "o",
    ),
    (
        "half, then its best 3, 5, 8",
        [f"{HALF}, then its best {count}" for count in (3, 5, 8)],
        "#74c0cf",
        "^",
    ),
    (
        "full training stopped early",
        [f"stopped after {share} of the stream" for share in ("6%", "12%", "25%", "50%")],
        "#868e96",
        "s",
    ),
    ("an eighth of the users", ["users"], "#868e96", "D"),
    ("ridge, 10 anchors", ["ridge, 10 anchors"], "#e8590c", "v"),
    ("random, fully trained", ["5 random, fully trained", "7 random, fully trained"], "#adb5bd", "x"),
    ("full training of all", ["full training, another seed"], "#212529", "*"),
]


def main() -> None:
    tables: dict[str, list[dict[str, Any]]] = json.loads((HERE / "truth/judges.json").read_text())["test"]
    figure, axes = plt.subplots(2, len(LOGS), figsize=(15, 6), sharex=True, sharey="row")
    for column, (log, title) in enumerate(LOGS.items()):
        rows = {row["judge"]: row for row in tables[log]}
        _draw(axes[0][column], rows, "tau")
        _draw(axes[1][column], rows, "regret")
        axes[0][column].set_title(title, fontsize=10)
        axes[1][column].set_xlabel("cost, in full trainings per candidate")
    axes[0][0].set_ylabel("Kendall tau; bars 95 %")
    axes[1][0].set_ylabel("regret of the first, AUC")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=4, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(HERE / "judges.svg", metadata={"Date": None})


def _draw(axis: Axes, rows: dict[str, dict[str, Any]], column: str) -> None:
    axis.set_xscale("log")
    axis.grid(alpha=0.25)
    for name, members, colour, marker in SERIES:
        own = [rows[member] for member in members if member in rows]
        cost, value = [row["cost"] for row in own], [row[column] for row in own]
        axis.plot(cost, value, color=colour, marker=marker, label=name, markersize=5, linewidth=1.2)
        if column == "tau":
            axis.vlines(
                cost,
                [row["tau_low"] for row in own],
                [row["tau_high"] for row in own],
                color=colour,
                alpha=0.25,
            )


if __name__ == "__main__":
    main()

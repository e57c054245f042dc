"""One page on a run: its evaluation, studies and searches."""

import json
import sys
from collections.abc import Callable
from functools import partial
from math import isnan
from typing import Any

import pandas as pd
import yaml

from diet_ray.evaluation.agreement import FEWEST
from diet_ray.evaluation.methods import METHODS, REDUCED
from diet_ray.runs.run import Run
from diet_ray.storage import Folder, file_at
from pipelines.evaluate import with_spread
from pipelines.inspection import reference_text
from pipelines.options.report import Report
from pipelines.reporting import charts
from pipelines.reporting.page import figure, folded, page, table, text
from pipelines.reporting.sizes import size_text
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import console
from pipelines.studies.ranking_table import ranking_agreement

SPREAD = "Mean and standard deviation over seeds; LogLoss in small print."


def execute(options: Report) -> None:
    run = Run.read(options.run)
    content = report(run).encode()
    folder, name = file_at(options.out, "report.html") if options.out else (run.folder, "report.html")
    folder.write(name, content)
    console.print(f"{folder / name}: {size_text(len(content))}", soft_wrap=True)


def report(run: Run) -> str:
    """The page; sections for which the run has nothing are left out."""
    config = run.config
    about = [
        f"Log {config['log']}, reference {reference_text(config)}, ratio {config['ratio']:.2%}, "
        f"seed {config['seed']}, {run.stage} stages.",
        "diet_ray: streaming dataset distillation for recommender models (arXiv 2603.24958).",
    ]
    cells = "studies/table3.parquet"
    if not run.folder.exists(cells):
        cells = "evaluation/results.parquet"
    sections: list[tuple[str, Callable[[], str]]] = [
        ("Comparison", partial(_study, run, cells, comparison)),
        ("Without the subsequent block", partial(_study, run, cells, before)),
        ("Ranking", partial(_study, run, "studies/ranking.parquet", ranking)),
        ("Ratio", partial(_study, run, "studies/ratio.parquet", ratio)),
        ("Ratio and reference", partial(_study, run, "studies/figure3.parquet", ratio)),
        ("Reference", partial(_study, run, "studies/reference.parquet", references)),
        ("Parts switched off", partial(_study, run, "studies/table4.parquet", ablation)),
        ("Trajectories", partial(_study, run, "studies/figure1.parquet", trajectories)),
        ("Cost", partial(_study, run, "studies/table5.parquet", cost)),
        *((f"Search: {name}", partial(searched, run, name)) for name in searches(run.folder)),
        ("Memory", partial(memory, run)),
        ("Stages", partial(stages, run)),
        ("Settings", lambda: folded("config.yaml", yaml.safe_dump(config, sort_keys=True))),
    ]
    name = run.folder.root.rsplit("/", 1)[-1]
    return page(f"Run {name}", about, [(heading, body()) for heading, body in sections])


def _study(run: Run, path: str, show: Callable[[pd.DataFrame], str]) -> str:
    if not run.folder.exists(path):
        return ""
    return show(run.folder.read_parquet(path).to_pandas())


def _methods(cells: pd.DataFrame) -> list[str]:
    return [method for method in METHODS if method in set(cells["method"])]


def comparison(cells: pd.DataFrame) -> str:
    methods = _methods(cells)
    seeds = ", ".join(map(str, sorted(cells["seed"].unique())))
    said = text(f"Test block, after the subsequent block; seeds {seeds}. {SPREAD}")
    return (
        said
        + _scores(cells, methods, "")
        + figure(charts.cells_chart(cells, methods), "A dot per seed.")
        + _lead(cells)
    )


def before(cells: pd.DataFrame) -> str:
    methods = [method for method in _methods(cells) if method in (*REDUCED, "full")]
    if not methods:
        return ""
    return text("Test block, before the candidates saw the subsequent block.") + _scores(
        cells, methods, "_before"
    )


def _scores(cells: pd.DataFrame, methods: list[str], suffix: str) -> str:
    """A row per method, a column per candidate and their mean."""
    candidates = list(cells["candidate"].unique())
    rows: list[list[Any]] = []
    for method in methods:
        mine = cells[cells["method"] == method]
        by_seed = mine.groupby("seed")[[f"auc{suffix}", f"logloss{suffix}"]].mean()
        groups = [mine[mine["candidate"] == candidate] for candidate in candidates]
        rows.append([method, *(_score(group, suffix) for group in groups), _score(by_seed, suffix)])
    return table(["method", *candidates, "mean"], rows)


def _score(rows: pd.DataFrame, suffix: str = "") -> tuple[str, str]:
    return with_spread(rows[f"auc{suffix}"]), with_spread(rows[f"logloss{suffix}"])


def _lead(cells: pd.DataFrame) -> str:
    """DIET minus each baseline, cell by cell."""
    wide = cells.pivot_table(index=["candidate", "seed"], columns="method", values="auc")
    if "diet" not in wide:
        return ""
    rows: list[list[Any]] = []
    for baseline in [method for method in _methods(cells) if method != "diet"]:
        lead = (wide["diet"] - wide[baseline]).dropna()
        if len(lead):
            error = lead.std() / len(lead) ** 0.5 if len(lead) > 1 else float("nan")
            rows.append(
                [baseline, f"{lead.mean():+.4f}", f"{error:.4f}", f"{(lead > 0).sum()} of {len(lead)}"]
            )
    return table(["DIET minus baseline", "test AUC", "standard error", "cells in which it leads"], rows)


def ranking(cells: pd.DataFrame) -> str:
    methods = [method for method in _methods(cells) if method != "full"]
    scores = cells.pivot_table(index="candidate", columns="method", values="auc").dropna()
    if "full" not in scores or len(scores) < FEWEST:
        return ""
    agreed = ranking_agreement(cells[cells["candidate"].isin(scores.index)])
    said = text(
        "Does a cheap score rank candidates as training on all history does? Test AUC, means over seeds, "
        "95 % bootstrap intervals over candidates; time is of a whole cell."
    )
    tables = [_agreement_table(part) for _, part in agreed.groupby("among", sort=False)]
    chart = figure(charts.ranking_chart(scores, methods), "A dot per candidate, 1 the best.")
    return said + "".join(tables) + chart


def _agreement_table(agreed: pd.DataFrame) -> str:
    rows = []
    for row in agreed.to_dict("records"):
        interval = (
            ["", "", ""]
            if row["method"] == "full"
            else [
                (
                    f"{row[name]:.{digits}f}",
                    f"{row[f'{name}_low']:.{digits}f} to {row[f'{name}_high']:.{digits}f}",
                )
                for name, digits in (("kendall", 2), ("spearman", 2), ("regret", 4))
            ]
        )
        name = "full, another seed" if row["method"] == "full" else row["method"]
        single = "" if isnan(row["kendall_single"]) else f"{row['kendall_single']:.2f}"
        rows.append([name, *interval, single, f"{row['cost_ratio']:.1f}"])
    head = ["scores of", "Kendall tau", "Spearman", "regret (AUC)", "tau of single seeds", "full / its time"]
    weak = "the weak ones left out" if agreed["among"].iloc[0] == "good" else "all"
    return text(f"{agreed['candidates'].max():.0f} candidates, {weak}:") + table(head, rows)


def ratio(cells: pd.DataFrame) -> str:
    return figure(charts.ratio_chart(cells), "Mean over candidates; bars: deviation over seeds.")


def references(cells: pd.DataFrame) -> str:
    return text(
        f"By the reference that labels the rows and whose tables candidates inherit. {SPREAD}"
    ) + _variants(cells)


def ablation(cells: pd.DataFrame) -> str:
    parts = (
        "MF memory fusion, TS target selection, MS memory selection; realignment: old rows follow the tables."
    )
    return text(f"{parts} {SPREAD}") + _variants(cells)


def _variants(cells: pd.DataFrame) -> str:
    """A row per variant of the run and method, a column per candidate and their mean."""
    candidates = list(cells["candidate"].unique())
    rows = []
    for (variant, method), mine in cells.groupby(["variant", "method"], sort=False):
        by_seed = mine.groupby("seed")[["auc", "logloss"]].mean()
        groups = [mine[mine["candidate"] == candidate] for candidate in candidates]
        rows.append([variant, method, *(_score(group) for group in groups), _score(by_seed)])
    return table(["", "method", *candidates, "mean"], rows)


def trajectories(points: pd.DataFrame) -> str:
    caption = (
        "A line per candidate and seed. Reduced rows start under the reference's tables, full training from "
        "nothing."
    )
    return figure(charts.trajectory_chart(points), caption)


def cost(rows: pd.DataFrame) -> str:
    shown = [
        [
            row["method"],
            row["candidate"],
            "" if pd.isna(row["seconds_epoch"]) else f"{row['seconds_epoch']:.1f}",
            f"{row['seconds_history']:.1f}",
            "" if pd.isna(row["peak_bytes"]) else f"{row['peak_bytes'] / 1e6:,.0f}",
        ]
        for row in rows.groupby(["method", "candidate"], sort=False)
        .mean(numeric_only=True)
        .reset_index()
        .to_dict("records")
    ]
    return table(["", "model", "seconds per epoch", "seconds in all", "peak memory, MB"], shown)


def searches(folder: Folder) -> list[str]:
    """Folders of the run that hold a search."""
    paths = folder.fs.glob(f"{folder.root}/*/results.parquet")
    names = [path.rsplit("/", 2)[-2] for path in paths]
    return sorted(name for name in names if folder.exists(f"{name}/best.yaml"))


def searched(run: Run, name: str) -> str:
    trials = run.folder.read_parquet(f"{name}/results.parquet").to_pandas()
    scored = trials[trials["auc"].notna()].reset_index(drop=True)
    states = ", ".join(f"{count} {state}" for state, count in trials["state"].value_counts().items())
    rows = []
    for row in scored.head(10).to_dict("records"):
        tested = "" if pd.isna(row["confirmed_test_auc"]) else f"{row['confirmed_test_auc']:.4f}"
        candidate = json.loads(row["candidate"])
        options = ", ".join(f"{k} {v}" for k, v in candidate["options"].items())
        rate = "" if pd.isna(row["learning_rate"]) else f"{row['learning_rate']:.2g}"
        scores = [f"{row['auc']:.4f}", tested, row["epochs"], f"{row['seconds']:.0f}"]
        rows.append([str(row["number"]), row["model"], *scores, rate, options])
    head = ["trial", "model", "validation AUC", "test AUC", "epochs", "seconds", "learning rate", "options"]
    body = text(f"{len(trials)} trials: {states}. {trials['seconds'].sum():,.0f} seconds of training in all.")
    body += table(head, rows)
    if len(scored) > 2:
        body += figure(charts.pareto_chart(scored), "Quality against cost; a dot per trial.")
        columns = [
            c for c in ("model", "learning_rate", "epochs", "seconds", "auc") if scored[c].notna().all()
        ]
        body += figure(charts.parallel_chart(scored, columns), "A line per trial, the darker the better.")
    return body


def memory(run: Run) -> str:
    if not run.records:
        return ""
    composed = [record.metrics.memory for record in run.records]
    newest = composed[-1]
    caption = f"{newest.rows:,} rows in the newest memory."
    return figure(charts.composition_chart([each.rows_by_stage for each in composed]), caption)


def stages(run: Run) -> str:
    if not run.records:
        return ""
    rows = []
    for record in run.records:
        metrics = record.metrics
        written = (record.memory_stamp().size, record.checkpoint_bytes)
        sizes = [f"{size / 1e6:,.1f}" for size in written]
        losses = metrics.memory.outer_loss
        outer = f"{losses[0]:.4f} to {losses[-1]:.4f}" if losses else "not optimised"
        counts = [metrics.block_rows, metrics.memory.rows]
        rows.append([record.block, *counts, *sizes, f"{metrics.training_loss:.4f}", outer])
    head = ["block", "rows", "rows of memory", "memory, MB", "checkpoint, MB", "training loss", "outer loss"]
    timeline = charts.timeline_chart([record.metrics.seconds for record in run.records])
    caption = "Training of a block runs beside scoring and distilling of the block before."
    return table(head, rows) + figure(timeline, caption)


if __name__ == "__main__":
    sys.exit(run_command(Report, "diet-ray report"))

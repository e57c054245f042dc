"""The stages of a run and where their time went. (A file named inspect.py would hide Python's own.)"""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from diet_ray.distillation.el2n import group_name
from diet_ray.distillation.memory import stored_schema
from diet_ray.evaluation.verdicts.evidence import of_run
from diet_ray.evaluation.verdicts.verdict import verdict
from diet_ray.runs.records import StageRecord
from diet_ray.runs.run import Run
from pipelines.options.inspection import Inspect
from pipelines.reporting.sizes import size_text
from pipelines.runtime.command import run_command


def reference_text(config: dict[str, Any]) -> str:
    """The models of a run's reference."""
    return " + ".join((config["reference"]["name"], *config["reference"]["ensemble"]))


def execute(options: Inspect) -> None:
    run = Run.read(options.run)
    if options.verify:
        for record in run.records:
            run.verify(record.stage)
    out = Console()
    if options.json:
        out.out(json.dumps([record.plain() for record in run.records], indent=1), highlight=False)
        return
    config = run.config
    stages = f"{run.stage} stages{', files verified' if options.verify else ''}"
    out.print(
        f"{options.run}: log {config['log']}, reference {reference_text(config)}, "
        f"ratio {config['ratio']:g}, seed {config['seed']}, {stages}",
        soft_wrap=True,
    )
    if run.records:
        if evidence := of_run(run):
            out.print(verdict(evidence).text, markup=False)
        for table in (stage_table, time_table, survival_table):
            out.print(table(run.records))
        out.print(group_table(run))


def stage_table(records: list[StageRecord]) -> Table:
    """One row per stage: rows in, rows of memory, sizes and losses."""
    shown = Table("stage", "block rows", "memory rows", "memory", "checkpoint", "outer loss", title="Stages")
    for record in records:
        memory = record.metrics.memory
        outer = memory.outer_loss
        shown.add_row(
            str(record.stage),
            f"{record.metrics.block_rows:,}",
            f"{memory.rows:,}",
            size_text(record.memory_stamp().size),
            size_text(record.checkpoint_bytes),
            f"{outer[0]:.4f} -> {outer[-1]:.4f}" if outer else "not optimised",
        )
    return shown


def time_table(records: list[StageRecord]) -> Table:
    """Seconds of each part of a stage; training runs beside the other two of the stage before."""
    shown = Table("stage", "train", "score", "distill", "training loss", title="Time per stage")
    for record in records:
        seconds = record.metrics.seconds
        parts = [f"{value:.0f} s" for value in (seconds.train, seconds.score, seconds.distill)]
        shown.add_row(str(record.stage), *parts, f"{record.metrics.training_loss:.4f}")
    return shown


def survival_table(records: list[StageRecord]) -> Table:
    """Rows of each memory by the stage whose block they were selected from."""
    shown = Table("from stage", *(f"in memory {r.stage}" for r in records), title="Surviving rows")
    for origin in records:
        counts = [r.metrics.memory.rows_by_stage.get(origin.stage, 0) for r in records]
        shown.add_row(str(origin.stage), *(f"{n:,}" if n else "" for n in counts))
    return shown


def group_table(run: Run) -> Table:
    """Label groups of the newest block and of the newest memory."""
    record = run.records[-1]
    tasks = stored_schema(run.folder.read_parquet(record.memory_stamp().path)).tasks
    block, memory = record.metrics.label_groups, record.metrics.memory.rows_by_label_group
    shown = Table(
        "label group", "block rows", "share", "memory rows", "share", title="Label groups, newest stage"
    )
    for group in sorted(block.keys() | memory.keys()):
        shares = []
        for counts in (block, memory):
            n = counts.get(group, 0)
            shares += [f"{n:,}", f"{n / sum(counts.values()):.1%}"]
        shown.add_row(group_name(group, tasks), *shares)
    return shown


if __name__ == "__main__":
    sys.exit(run_command(Inspect, "diet-ray inspect"))

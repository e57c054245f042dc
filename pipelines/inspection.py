"""The stages of a run and where their time went. (A file named inspect.py would hide Python's own.)"""

import json
import sys
from itertools import pairwise
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from diet_ray.evaluation.verdicts.evidence import of_run
from diet_ray.evaluation.verdicts.verdict import verdict
from diet_ray.memory_schema import group_name, stored_schema
from diet_ray.runs.records import StageRecord
from diet_ray.runs.run import Run
from pipelines.options.inspection import Inspect
from pipelines.reporting.sizes import size_text
from pipelines.runtime.command import run_command

FIRST, NEWEST = 2, 8  # stages that a table shows of many
MEMORIES, RANGES = 4, 6  # newest memories, and ranges of older stages, in the table of surviving rows


def reference_text(config: dict[str, Any]) -> str:
    """The models of a run's reference."""
    return " + ".join((config["reference"]["name"], *config["reference"]["ensemble"]))


def execute(options: Inspect) -> None:
    run = Run.read(options.run)
    out = Console()
    if options.json:
        out.out(json.dumps([record.plain() for record in run.records], indent=1), highlight=False)
        return
    config = run.config
    out.print(
        f"{options.run}: log {config['log']}, reference {reference_text(config)}, "
        f"ratio {config['ratio']:g}, seed {config['seed']}, {run.stage} stages",
        soft_wrap=True,
    )
    if run.records:
        if evidence := of_run(run):
            out.print(verdict(evidence).text, markup=False)
        for table in (stage_table, time_table, survival_table):
            out.print(table(run.records))
        out.print(group_table(run))


def listed(records: list[StageRecord]) -> list[StageRecord | None]:
    """The stages that a table shows: all, or of many the first and the newest; None for those between."""
    if len(records) <= FIRST + NEWEST + 1:
        return [*records]
    return [*records[:FIRST], None, *records[-NEWEST:]]


def stage_table(records: list[StageRecord]) -> Table:
    """One row per stage: rows in, rows of memory, sizes and losses."""
    shown = Table("stage", "block rows", "memory rows", "memory", "checkpoint", "outer loss", title="Stages")
    for record in listed(records):
        if record is None:
            shown.add_row("...", "", "", "", "", "")
            continue
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
    rows = sum(record.metrics.block_rows for record in records)
    shown.caption = f"{len(records)} stages, {rows:,} rows of blocks"
    return shown


def time_table(records: list[StageRecord]) -> Table:
    """Seconds of each part of a stage; training runs beside the other two of the stage before."""
    shown = Table("stage", "train", "score", "distill", "training loss", title="Time per stage")
    for record in listed(records):
        if record is None:
            shown.add_row("...", "", "", "", "")
            continue
        parts = [f"{value:.0f} s" for value in _seconds(record)]
        shown.add_row(str(record.stage), *parts, f"{record.metrics.training_loss:.4f}")
    medians = (f"{median(part):.0f} s" for part in zip(*map(_seconds, records), strict=True))
    shown.add_section()
    shown.add_row("median", *medians, "")
    return shown


def _seconds(record: StageRecord) -> tuple[float, float, float]:
    seconds = record.metrics.seconds
    return seconds.train, seconds.score, seconds.distill


def survival_table(records: list[StageRecord]) -> Table:
    """Rows of the newest memories by the stages whose blocks they were selected from."""
    newest = records[-MEMORIES:]
    shown = Table("from stage", *(f"in memory {r.stage}" for r in newest), title="Surviving rows")
    for first, last in ranges(len(records)):
        of_memories = [r.metrics.memory.rows_by_stage for r in newest]
        counts = [sum(rows.get(n, 0) for n in range(first, last + 1)) for rows in of_memories]
        name = str(first) if first == last else f"{first} to {last}"
        shown.add_row(name, *(f"{n:,}" if n else "" for n in counts))
    return shown


def ranges(stages: int) -> list[tuple[int, int]]:
    """First and last stage of each row: single stages where there are few, else ranges of the older ones."""
    if stages <= FIRST + NEWEST:
        return [(stage, stage) for stage in range(1, stages + 1)]
    older = stages - MEMORIES
    bounds = [older * number // RANGES for number in range(RANGES + 1)]
    joined = [(first + 1, last) for first, last in pairwise(bounds) if last > first]
    return joined + [(stage, stage) for stage in range(older + 1, stages + 1)]


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

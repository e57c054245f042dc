"""Take a run back to an earlier stage, for a memory, a reference or a block that should not have been."""

import sys

from rich.console import Console
from rich.table import Table

from diet_ray import layout
from diet_ray.lease import Lease
from diet_ray.runs.records import StageRecord
from diet_ray.runs.rollback import places, removed_stages, roll_back
from diet_ray.runs.run import Run
from diet_ray.storage import Folder, absolute
from pipelines.options.rollback import Rollback
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import console

SHOWN = 10  # rows of a table


def execute(options: Rollback) -> None:
    url = absolute(options.run)
    run = Run.read(url)
    if not options.yes:
        show(run, removed_stages(run, options.to))
        console.print("nothing was removed; add --yes to remove it", markup=False)
        return
    with Lease(Folder.at(url)) as lease:
        run = Run.read(url)
        removed_stages(run, options.to)
        roll_back(run, options.to, lease)
    command = "stream" if "stream" in run.config else "distill"
    console.print(
        f"{options.run} is at stage {options.to}: its memory is {layout.memory(options.to)}; the same "
        f"`diet-ray {command}` as before goes on after it",
        markup=False,
    )


def show(run: Run, removed: list[StageRecord]) -> None:
    """Print what a rollback removes and what is read again."""
    out = Console()
    files = sum(len(record.files) for record in removed)
    table = Table("stage", "block", "rows of the block", "rows of the memory", title="Stages to remove")
    for record in removed[:SHOWN]:
        metrics = record.metrics
        table.add_row(str(record.stage), record.block, f"{metrics.block_rows:,}", f"{metrics.memory.rows:,}")
    if len(removed) > SHOWN:
        last, more = removed[-1], len(removed) - SHOWN
        table.caption = f"and {more} more, up to stage {last.stage} (block {last.block})"
    out.print(table)
    rows = sum(record.metrics.block_rows for record in removed)
    out.print(f"{len(removed)} records and the {files:,} files that they name; {rows:,} rows are taken again")
    again = places(removed)
    if again:
        table = Table("read again", "from", title="Of the source")
        for place in again[:SHOWN]:
            table.add_row(place.origin, f"{place.start:,}" if place.start else "the start")
        if len(again) > SHOWN:
            table.caption = f"and {len(again) - SHOWN} more"
        out.print(table)


if __name__ == "__main__":
    sys.exit(run_command(Rollback, "diet-ray rollback"))

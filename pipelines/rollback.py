"""Take a run back to an earlier stage, for a memory, a reference or a block that should not have been."""

import sys
from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.table import Table

from diet_ray import layout
from diet_ray.lease import Lease
from diet_ray.runs.records import StageRecord
from diet_ray.runs.rollback import places, removed_stages, roll_back
from diet_ray.runs.run import Run
from diet_ray.storage import Folder, absolute
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import console

SHOWN = 10  # rows of a table


@dataclass(frozen=True)
class Rollback:
    """Take a run back to an earlier stage: remove the records and files of the stages after it.

    $ diet-ray rollback runs/live --to 41

    $ diet-ray rollback runs/live --to 41 --yes

    Shows what would be removed; --yes removes it. Readers see the memory of that stage at once, and never
    none. The next `diet-ray distill` or `diet-ray stream` goes on after it: a stream reads again what the
    removed stages took, so its source must still have it. A stream can go back as far as its files are kept
    (--stream.keep-last, --stream.keep-every).
    """

    run: tyro.conf.Positional[str]
    """Directory of the run; nobody may be writing it."""
    to: int
    """The stage to go back to, from 1."""
    yes: bool = False
    """Remove; without it nothing is changed."""

    def __call__(self) -> None:
        url = absolute(self.run)
        run = Run.read(url)
        if not self.yes:
            show(run, removed_stages(run, self.to))
            console.print("nothing was removed; add --yes to remove it", markup=False)
            return
        with Lease(Folder.at(url)) as lease:
            run = Run.read(url)
            removed_stages(run, self.to)
            roll_back(run, self.to, lease)
        command = "stream" if "stream" in run.config else "distill"
        console.print(
            f"{self.run} is at stage {self.to}: its memory is {layout.memory(self.to)}; the same `diet-ray "
            f"{command}` as before goes on after it",
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

"""Take a run back to an earlier stage: the stages after it are removed, and what they took is taken again.

Readers are first shown the memory to which the run goes back; then records go, newest first, and at last
files. Wherever that is interrupted, what is left is a run: of the earlier stage, or of one between.
"""

from itertools import islice
from typing import NamedTuple

from diet_ray import layout
from diet_ray.errors import RunError
from diet_ray.lease import Lease
from diet_ray.runs.records import StageRecord
from diet_ray.runs.run import Run

SHOWN = 3


class Place(NamedTuple):
    """From where an origin (a file, a partition) is read again."""

    origin: str
    start: int


def removed_stages(run: Run, to: int) -> list[StageRecord]:
    """The records that a rollback to stage `to` removes.

    Raises:
        RunError: where there is no such stage, or a file that the stage after it starts from is gone or
            damaged; the message names the stages that the run can go back to.
    """
    if not 1 <= to < run.stage:
        stages = f"1 to {run.stage - 1}" if run.stage > 1 else "none"
        raise RunError(
            f"{run.folder.root} cannot go back to stage {to}: it has {run.stage} stages, and can go back to "
            f"{stages}"
        )
    try:
        run.check_start(to)
    except RunError as damaged:
        raise RunError(
            f"{run.folder.root} cannot go back to stage {to}: {damaged}; {_possible(run)}"
        ) from damaged
    return run.records[to:]


def places(removed: list[StageRecord]) -> list[Place]:
    """Where a stream reads on after the rollback, for each origin of which rows are taken again."""
    first: dict[str, int] = {}
    for record in removed:
        for taken in record.metrics.stream.taken if record.metrics.stream else ():
            first.setdefault(taken.origin, taken.start)
    return [Place(*each) for each in sorted(first.items())]


def roll_back(run: Run, to: int, lease: Lease) -> Run:
    """Take the run back to stage `to` (removed_stages has checked it); return it as it is then."""
    folder = run.folder
    run.publish_latest(to)
    for stage in range(run.stage, to, -1):
        lease.check()
        folder.fs.rm(folder / layout.record(stage))
    again = Run(folder, folder.read(layout.CONFIG))
    again.sweep(keep_trained=False)
    return again


def _possible(run: Run) -> str:
    """The newest stages to go back to, in words; each is read whole, so there are few."""
    possible = islice((stage for stage in range(run.stage - 1, 0, -1) if _can_start(run, stage)), SHOWN)
    stages = ", ".join(map(str, possible))
    return f"it can go back to stage {stages}" if stages else "there is no stage that it can go back to"


def _can_start(run: Run, stage: int) -> bool:
    try:
        run.check_start(stage)
    except RunError:
        return False
    return True

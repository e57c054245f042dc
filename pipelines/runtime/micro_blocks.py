"""The micro-blocks of a stream as a block source, and what it removes of old stages."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.log.dataset import Block
from diet_ray.log.stream.config import StreamConfig
from diet_ray.log.stream.intake import Closed, Intake
from diet_ray.runs.metrics import StreamMetrics
from diet_ray.runs.run import Run
from diet_ray.runs.stage import Budget
from diet_ray.training.checkpoints.manifest import checkpoint_stages
from pipelines.runtime.driver import SourceCommit


class Pace(NamedTuple):
    """How the source is polled and when the stream ends."""

    poll: float  # seconds between two polls
    until_idle: float | None  # seconds without anything new after which the stream ends; None: never


class _ClosedBlock(NamedTuple):
    closed: Closed
    closed_at: float  # seconds since 1970 UTC
    clock: float  # time.monotonic() at the close, which does not run backwards
    seconds_to_read: float


class MicroBlocks:
    """A BlockSource that waits for what arrives.

    Args:
        intake: cuts what arrives into blocks.
        run: the stream's run.
        config: of the run.
        stream: when a block closes, what is kept.
        pace: polling and end.
        on_commit: called after every commit.
    """

    def __init__(
        self,
        intake: Intake,
        run: Run,
        config: RunConfig,
        stream: StreamConfig,
        pace: Pace,
        on_commit: Callable[[], None],
    ) -> None:
        self.intake, self.run, self.config = intake, run, config
        self.stream, self.pace, self.on_commit = stream, pace, on_commit
        self.tasks = intake.schema.task_names
        self.blocks: dict[int, _ClosedBlock] = {}
        self.stopped = threading.Event()
        self.history_rows = sum(record.metrics.block_rows for record in run.records)

    def next(self, stage: int) -> Block | None:
        opened = newest = time.monotonic()
        reading = 0.0
        while not self.stopped.is_set():
            now = time.monotonic()
            if self.intake.poll():
                newest = time.monotonic()
            if not self.intake.rows:
                opened = now
            idle = self.pace.until_idle is not None and now - newest >= self.pace.until_idle
            due = now - opened >= self.stream.block_seconds
            enough = self.intake.rows >= self.stream.min_rows
            closed = self.intake.close(stage, whole=(idle or due) and enough)
            reading += time.monotonic() - now
            if closed:
                self.blocks[stage] = _ClosedBlock(closed, time.time(), time.monotonic(), reading)
                return closed.block
            if idle:
                return None
            self.stopped.wait(self.pace.poll)
        return None

    def budget(self, block: Block, stage: int, old_rows: int) -> Budget:
        self.history_rows += block.rows
        rows = min(round(self.config.ratio * self.history_rows), self.stream.max_memory_rows)
        usual = round(self.stream.new_factor * self.config.ratio * block.rows)
        new_rows = min(self.config.method.boundary.new_rows(rows, old_rows), usual, block.rows)
        new_rows = max(new_rows, len(block.label_groups))  # each group has a row
        return Budget(new_rows + min(old_rows, max(0, rows - new_rows)), new_rows)

    def commit(self, stage: int) -> SourceCommit:
        block = self.blocks.pop(stage)
        waiting = sum(other.closed.block.rows for other in list(self.blocks.values()))
        metrics = StreamMetrics(
            **dict(block.closed.state),
            closed_at=block.closed_at,
            seconds_to_read=block.seconds_to_read,
            seconds_to_commit=time.monotonic() - block.clock,
            rows_waiting=self.intake.rows + waiting,
            unread=self.intake.waiting,
        )
        return SourceCommit(block.closed.files, metrics)

    def committed(self, stage: int) -> None:
        sweep(self.run, self.stream)
        self.on_commit()

    def stop(self) -> None:
        self.stopped.set()


def sweep(run: Run, config: StreamConfig) -> None:
    """Remove files of stages that have become too old, and events that no row in time can repeat.

    Events stay that the oldest of the newest `keep_last` stages needs: the run can go back to it.
    """
    folder, newest = run.folder, run.stage
    # A crash may have come between a commit and the sweep after it: also what was too old before.
    recent = range(max(1, newest - config.keep_last - 1), newest)
    old = [stage for stage in recent if not config.keeps(stage, newest)]
    parts = [part for part in layout.SWEPT_FOLDERS if part != "reference"]
    removed = [layout.stage_folder(part, stage) for stage in old for part in parts]
    removed += [layout.stage_folder("reference", stage) for stage in _obsolete_checkpoints(run, config)]
    oldest = max(1, newest - config.keep_last + 1)
    bound = _watermark(run, oldest) - config.lateness * 1000
    for stage in range(oldest, 0, -1):
        if _watermark(run, stage) < bound:
            path = layout.stage_folder("events", stage)
            if not folder.exists(path):
                break
            removed.append(path)
    for path in removed:
        if folder.exists(path):
            folder.fs.rm(folder / path, recursive=True)


def _obsolete_checkpoints(run: Run, config: StreamConfig) -> list[int]:
    """Stages whose checkpoint is too old, and that no checkpoint which is kept builds on."""
    paths = run.folder.fs.ls(run.folder / "reference", detail=False)
    numbers = (layout.stage_number(path.rsplit("/", 1)[-1]) for path in paths)
    stored = [stage for stage in numbers if stage is not None and stage <= run.stage]
    kept = {stage for stage in stored if config.keeps(stage, run.stage)}
    needed = kept.union(*(checkpoint_stages(run.folder, stage) for stage in kept))
    return [stage for stage in stored if stage not in needed]


def _watermark(run: Run, stage: int) -> int:
    stream = run.records[stage - 1].metrics.stream
    assert stream is not None
    return stream.watermark

"""One stage of a run: score the block, select, distill, report.

The body is written once: over actors of a cluster, in one process, and in the tests it is the same function;
only the workers differ.

Shape suffixes: N rows, T tasks.
"""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.distillation.baselines import random_rows
from diet_ray.distillation.boundary import boundary_rows
from diet_ray.distillation.distiller import Progress
from diet_ray.distillation.el2n import group_name
from diet_ray.distillation.memory import to_arrow
from diet_ray.distillation.memory_update import memory_schema, next_memory
from diet_ray.distillation.scored_rows import BlockScorer, EmbeddedRows
from diet_ray.log.dataset import Block
from diet_ray.runs.metrics import MeanScores, MemoryMetrics, Moments, StageMetrics, StageSeconds
from diet_ray.runs.records import StageRecord
from diet_ray.runs.state import RunState
from diet_ray.seeding import numpy_generator
from diet_ray.storage import FileStamp
from diet_ray.training.device import peak_bytes, reset_peak


class Budget(NamedTuple):
    """Rows of the memory after a stage, and how many of them are selected from its block."""

    rows: int
    new_rows: int


class TrainedBlock(NamedTuple):
    """A block that the reference has learned; its checkpoint is written but not committed."""

    block: Block
    files: tuple[FileStamp, ...]  # of the checkpoint
    loss: float
    seconds: float
    progressive: MeanScores | None = None


class DistilledMemory(NamedTuple):
    """A memory that is written but not committed."""

    stamp: FileStamp
    metrics: MemoryMetrics


class StageWorkers(Protocol):
    """Those who do the work of a stage, in this process or on a cluster."""

    def scorer(self, stage: int, block: Block) -> BlockScorer:
        """The block under the checkpoint of `stage`."""
        ...

    def distill(self, stage: int, rows: int, boundary: EmbeddedRows, pool: EmbeddedRows) -> DistilledMemory:
        """Make and write the memory of `stage`, at most `rows` rows."""
        ...

    def probe(self, stage: int) -> MeanScores | None:
        """Scores of a small candidate trained on the memory before `stage`; None where none is due."""
        ...


class FinishedStage(NamedTuple):
    """What a stage commits."""

    files: tuple[FileStamp, ...]
    metrics: StageMetrics


def run_stage(
    stage: int,
    trained: TrainedBlock,
    budget: Budget,
    workers: StageWorkers,
    config: RunConfig,
    missing_label_groups: tuple[str, ...] = (),
) -> FinishedStage:
    """Score a learned block, select its boundary rows and distill them; nothing is committed yet.

    Args:
        stage: number of the stage, from 1.
        trained: the block and its checkpoint.
        budget: rows of the memory.
        workers: who scores and distills.
        config: of the run.
        missing_label_groups: see `missing_groups`; for the record.
    """
    block, clock = trained.block, Clock()
    scorer = workers.scorer(stage, block)
    boundary = scorer.embed(boundary_rows(scorer, budget.new_rows, config.method.boundary))
    draw = numpy_generator(config.seed, "pool", stage)
    pool = scorer.embed(random_rows(scorer, config.pool_rows, draw))
    el2n_N = pool.el2n()
    score_s = clock.lap()
    probed = workers.probe(stage)
    probe_s = clock.lap()
    memory = workers.distill(stage, budget.rows, boundary, pool)
    metrics = StageMetrics(
        memory=memory.metrics,
        block_rows=block.rows,
        label_groups=block.label_groups,
        missing_label_groups=missing_label_groups,
        training_loss=trained.loss,
        el2n=Moments(mean=float(el2n_N.mean()), deviation=float(el2n_N.std())),
        seconds=StageSeconds(
            train=trained.seconds, score=score_s, distill=clock.lap(), probe=probe_s if probed else None
        ),
        progressive=trained.progressive,
        probe=probed,
    )
    return FinishedStage((*trained.files, memory.stamp), metrics)


def distill_stage(
    state: RunState,
    stage: int,
    rows: int,
    boundary: EmbeddedRows,
    pool: EmbeddedRows,
    report: Callable[[Progress], None] = lambda progress: None,
) -> DistilledMemory:
    """Turn the memory before a stage into the memory after it, and write it.

    Args:
        state: the run, with the checkpoint of `stage` written.
        stage: number of the stage, from 1.
        rows: most rows of the memory.
        boundary: rows selected from the block.
        pool: a random sample of its rows, from which targets are taken.
        report: called after every outer iteration.
    """
    losses: list[float] = []
    reset_peak()

    def note(progress: Progress) -> None:
        losses.append(progress.outer_loss)
        report(progress)

    old, reference = state.memory(stage - 1), state.checkpoint(stage)
    device = reference.device
    memory = next_memory(
        stage,
        state.log,
        state.config,
        rows=rows,
        boundary=boundary.as_memory(stage).to(device),
        old=old.to(device) if old else None,
        real=pool.targets(state.config.method.outer.target_labels).to(device),
        reference=reference,
        previous=state.checkpoint(stage - 1) if stage > 1 else None,
        report=note,
    )
    schema = memory_schema(state.log, state.config)
    table = to_arrow(memory, schema, reference=layout.checkpoint(stage))
    stamp = state.folder.write_parquet(layout.memory(stage), table)
    return DistilledMemory(stamp, MemoryMetrics.of(memory, old, tuple(losses), peak_bytes()))


def missing_groups(records: Collection[StageRecord], block: Block, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Label groups of earlier blocks that this block lacks, as task names."""
    earlier = {group for record in records for group in record.metrics.label_groups}
    return tuple(group_name(group, tasks) for group in sorted(earlier - block.label_groups.keys()))


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

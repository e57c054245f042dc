"""One stage of a run: score the block, select, distill, report.

The body is written once: over actors of a cluster, in one process, and in the tests it is the same function;
only the workers differ.
"""

import time
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from diet_ray.config import RunConfig
from diet_ray.distillation.boundary import boundary_rows, el2n_histogram
from diet_ray.distillation.pool import Pool, draw_pool
from diet_ray.distillation.scored_rows import BlockScorer, Columns
from diet_ray.log.dataset import Block
from diet_ray.memory_schema import group_name
from diet_ray.runs.metrics import MeanScores, Moments, StageMetrics, StageSeconds
from diet_ray.runs.records import StageRecord
from diet_ray.runs.stage_memory import DistilledMemory
from diet_ray.seeding import derived_seed
from diet_ray.storage import FileStamp


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


class ProbeScores(NamedTuple):
    """Scores of a small candidate on a block that it has not learned."""

    memory: MeanScores  # trained on the memory before the block
    newest: MeanScores  # trained on random rows of the block before


class StageWorkers(Protocol):
    """Those who do the work of a stage, in this process or on a cluster."""

    def scorer(self, stage: int, block: Block) -> BlockScorer:
        """The block under the checkpoint of `stage`."""
        ...

    def directions(self, stage: int, rows: int, boundary: Columns) -> Any:
        """The directions of the stage's proxies, as `align` of this stage's scorer takes them."""
        ...

    def distill(self, stage: int, rows: int, boundary: Columns, pool: Pool) -> DistilledMemory:
        """Make and write the memory of `stage`, at most `rows` rows; see StageMemory.distill."""
        ...

    def probe(self, stage: int) -> ProbeScores | None:
        """Scores of a small candidate on the block of `stage`; None where none are due."""
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
    histogram = el2n_histogram(scorer)
    seed = derived_seed(config.seed, "boundary", stage)
    boundary = scorer.embed(boundary_rows(scorer, histogram, budget.new_rows, config.method.boundary, seed))
    score_s = clock.lap()
    probed = workers.probe(stage)
    probe_s = clock.lap()
    pool = draw_pool(scorer, stage, config, lambda: workers.directions(stage, budget.rows, boundary))
    score_s += clock.lap()
    mean, deviation = histogram.moments()
    memory = workers.distill(stage, budget.rows, boundary, pool)
    metrics = StageMetrics(
        memory=memory.metrics,
        block_rows=block.rows,
        label_groups=block.label_groups,
        missing_label_groups=missing_label_groups,
        training_loss=trained.loss,
        el2n=Moments(mean=mean, deviation=deviation),
        seconds=StageSeconds(
            train=trained.seconds, score=score_s, distill=clock.lap(), probe=probe_s if probed else None
        ),
        progressive=trained.progressive,
        probe=probed.memory if probed else None,
        probe_newest=probed.newest if probed else None,
    )
    return FinishedStage((*trained.files, memory.stamp), metrics)


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

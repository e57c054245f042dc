"""The driver of a run: trains ahead, runs each stage over actors, commits.

The reference trains on block t+1 while block t is scored and distilled. Where the blocks come from, and
whether they ever end, is up to the block source.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import ray

from actors.connection import user_errors
from actors.distiller import Distiller
from actors.placement import Plan
from actors.reference.choice import end_reference, reference_actor
from actors.reservation import CapacityWatch, Reservation
from actors.restart import restartable
from actors.scorer import Scorer, ScorerPool
from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.distillation.pool import Pool
from diet_ray.distillation.scored_rows import BlockScorer, Columns
from diet_ray.lease import Lease
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.log.stream.run_log import open_log
from diet_ray.runs.metrics import MeanScores, StreamMetrics
from diet_ray.runs.reference_reuse import ReusedReference
from diet_ray.runs.run import Run
from diet_ray.runs.stage import Budget, ProbeScores, TrainedBlock, missing_groups, run_stage
from diet_ray.runs.stage_memory import PIECE, DistilledMemory
from diet_ray.runs.trained import Trained, trained_once
from diet_ray.storage import FileStamp
from pipelines.runtime.board import Board, stage_values
from pipelines.runtime.progress import Bars, console


class SourceCommit(NamedTuple):
    """What a block source adds to the record of a stage."""

    files: tuple[FileStamp, ...] = ()
    stream: StreamMetrics | None = None


class BlockSource(Protocol):
    """Blocks one after another, by the number of their stage."""

    tasks: tuple[str, ...]

    def next(self, stage: int) -> Block | None:
        """The block of a stage, waited for where it has to be; None after the last one."""

    def budget(self, block: Block, stage: int, old_rows: int) -> Budget:
        """Rows of the memory after `stage`, where the one before has `old_rows`."""

    def commit(self, stage: int) -> SourceCommit:
        """Files and metrics of the source for the record of a stage."""

    def committed(self, stage: int) -> None:
        """Called after the record of a stage is written."""

    def stop(self) -> None:
        """Release whoever waits in `next`: the run ends."""


class Guard(Protocol):
    """Looks at the reference and the memory before a stage learns its block."""

    def examine(self, reference: Any, block: Block, stage: int) -> MeanScores | None:
        """Scores of the reference on a block that it has not learned; raises where it should not go on."""

    def probe(self, distiller: Any, stage: int) -> ProbeScores | None:
        """Scores of a probe on the block of a stage; None where none is due."""


class NoGuard:
    """A Guard that looks at nothing."""

    def examine(self, reference: Any, block: Block, stage: int) -> MeanScores | None:
        return None

    def probe(self, distiller: Any, stage: int) -> ProbeScores | None:
        return None


class ActorWorkers:
    """StageWorkers over actors, of one stage; rows pass as references.

    Args:
        scorers: the scoring actors.
        distiller: the distilling actor.
        guard: decides on probes.
        log: the log of the block.
        config: of the run.
        old_rows: rows of the memory of the stage before.
        cached: whether the scorers keep scores for other runs.
        shown: where progress is shown.
    """

    def __init__(
        self,
        scorers: list[Any],
        distiller: Any,
        guard: Guard,
        *,
        log: EncodedLog,
        config: RunConfig,
        old_rows: int,
        cached: bool,
        shown: Bars,
    ) -> None:
        self.scorers, self.distiller, self.guard = scorers, distiller, guard
        self.log, self.config, self.old_rows = log, config, old_rows
        self.cached, self.shown = cached, shown
        self._pool: ScorerPool | None = None
        self._weights: list[Any] | None = None

    def scorer(self, stage: int, block: Block) -> BlockScorer:
        self._pool = ScorerPool(self.scorers, self.log, block, stage, cached=self.cached)
        return self._pool

    def directions(self, stage: int, rows: int, boundary: Columns) -> Any:
        return self.distiller.directions.remote(stage, rows, boundary, self._weighed(stage, boundary))

    def distill(self, stage: int, rows: int, boundary: Columns, pool: Pool) -> DistilledMemory:
        weights = self._weighed(stage, boundary)
        with self.shown.bar("optimising", self.config.method.outer.iterations, "iterations") as bar:
            call = self.distiller.distill.options(num_returns="streaming")
            memory: DistilledMemory = result_of(
                call.remote(stage, rows, boundary, pool, weights), bar.advance
            )
        return memory

    def _weighed(self, stage: int, boundary: Columns) -> list[Any]:
        """References to the weights of the old rows (eq. 10) where the scorers weigh them: of a large memory,
        which would keep the distiller busy alone."""
        if self._weights is None:
            self._weights = []
            if self.config.method.boundary.fusion and self.old_rows > PIECE and self._pool:
                pieces = -(-self.old_rows // PIECE)
                along = self.distiller.fusion_direction.remote(stage, boundary)
                old = self.distiller.old_pieces.options(num_returns=pieces).remote(stage)
                self._weights = self._pool.weigh(along, old)
        return self._weights

    def probe(self, stage: int) -> ProbeScores | None:
        return self.guard.probe(self.distiller, stage)


class Driver:
    """Runs the missing stages of a run.

    Args:
        source: where blocks come from.
        run: the opened run.
        data: URL of the log.
        url: of the run.
        config: of the run.
        plan: what the actors take.
        lease: checked before every commit.
        reused: checkpoints of another run in place of training.
        score_cache: URL of the run in which runs of one reference share their scores.
        guard: looks at reference and memory before a block is learned.
    """

    def __init__(
        self,
        source: BlockSource,
        run: Run,
        *,
        data: str,
        url: str,
        config: RunConfig,
        plan: Plan,
        lease: Lease,
        reused: ReusedReference | None = None,
        score_cache: str | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.source, self.run, self.config, self.lease = source, run, config, lease
        self.reused, self.guard = reused, guard or NoGuard()
        self.log, self.cached = open_log(data), score_cache is not None
        self.board = Board(run.folder, layout.TENSORBOARD, run.stage + 1)
        self.reservation = Reservation(plan, _warn)
        options = self.reservation.options
        common = (data, url, config.model_dump(mode="json"), plan.threads)
        self.distiller = restartable(Distiller).options(**options(0)).remote(*common)
        self.scorers = [
            restartable(Scorer).options(**options(1 + number)).remote(*common, score_cache)
            for number in range(plan.scorers)
        ]
        self.reference = reference_actor(plan, *common[:3], self.reservation)
        actors = [self.reference, *self.scorers, self.distiller]
        self.watch = CapacityWatch(plan, actors, _warn)

    def run_stages(self, shown: Bars) -> None:
        """Run stage after stage until the source has no more blocks."""
        try:
            with user_errors(), self.watch, ThreadPoolExecutor(1) as ahead:
                training: Future[TrainedBlock | None] = ahead.submit(self._train, self.run.stage + 1, shown)
                try:
                    while trained := training.result():
                        training = ahead.submit(self._train, self.run.stage + 2, shown)
                        self._stage(self.run.stage + 1, trained, shown)
                    end_reference(self.reference, self.watch.plan)
                except BaseException:
                    self._abandon()
                    raise
                finally:
                    self.source.stop()
        finally:
            self.reservation.release()
            self.board.close()

    def _abandon(self) -> None:
        """End the actors: whoever trains ahead would be waited for, minutes after Ctrl-C or an error."""
        for actor in (self.reference, self.distiller, *self.scorers):
            ray.kill(actor)

    def _train(self, stage: int, shown: Bars) -> TrainedBlock | None:
        block = self.source.next(stage)
        if block is None:
            return None
        started = time.perf_counter()
        if self.reused:
            files, loss = self.reused.copy(stage, self.run)
            return TrainedBlock(block, files, loss, time.perf_counter() - started)
        progressive = self.guard.examine(self.reference, block, stage)

        def train() -> Trained:
            with shown.bar(f"training {block.name}", block.rows, "rows") as bar:
                call = self.reference.train.options(num_returns="streaming").remote(stage)
                files, loss = result_of(call, bar.advance)
            return Trained(files, loss, time.perf_counter() - started)

        trained = trained_once(self.run.folder, stage, block, train)
        return TrainedBlock(block, *trained, progressive)

    def _stage(self, stage: int, trained: TrainedBlock, shown: Bars) -> None:
        block, records = trained.block, self.run.records
        old_rows = records[-1].metrics.memory.rows if records else 0
        budget = self.source.budget(block, stage, old_rows)
        missing = missing_groups(records, block, self.source.tasks)
        for group in missing:
            _warn(f"block {block.name} has no row of label group {group}, which earlier blocks have")
        workers = ActorWorkers(
            self.scorers,
            self.distiller,
            self.guard,
            log=self.log,
            config=self.config,
            old_rows=old_rows,
            cached=self.cached,
            shown=shown,
        )
        finished = run_stage(stage, trained, budget, workers, self.config, missing)
        source = self.source.commit(stage)
        metrics = finished.metrics.model_copy(update={"stream": source.stream})
        self.lease.check()
        self.run.commit(block.name, (*finished.files, *source.files), metrics)
        self.board.add(stage, stage_values(self.run.records[-1]))
        self.source.committed(stage)
        shown.committed(block.rows)
        rows = metrics.memory.rows
        console.print(f"stage {stage} (block {block.name}) committed: the memory has {rows:,} rows")


def result_of(events: Iterator[Any], advance: Callable[[int], None]) -> Any:
    """Follow the events of a streaming actor method (actors.progress) to its result."""
    with user_errors():
        for ref in events:
            event = ray.get(ref)
            if event.kind == "done":
                return event.value
            advance(event.value)
    raise RuntimeError("an actor ended without a result")


def _warn(message: str) -> None:
    console.print(f"[yellow]{message}")

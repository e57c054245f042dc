"""The driver of reference model, scorers and distiller: decides what comes next and commits.

The reference trains on block t+1 while block t is scored and distilled. Where the blocks come from, and
whether they ever end, is for the block source to say.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import ray

from actors.cluster import ClusterWatch, Plan
from actors.connection import user_errors
from actors.distiller import Distiller
from actors.reference import ReferenceModel
from actors.scorer import Scorer, ScorerPool
from actors.worker import remote
from diet_ray.config import RunConfig
from diet_ray.distillation.el2n import group_name
from diet_ray.distillation.selection import boundary_rows, random_rows
from diet_ray.log.dataset import Block
from diet_ray.runs.lease import Lease
from diet_ray.runs.run import Run
from diet_ray.seeding import numpy_generator
from diet_ray.storage import FileStamp
from pipelines.runtime.progress import Bars, console
from pipelines.runtime.reference_reuse import LentReference


class Budget(NamedTuple):
    """Rows of the memory after a stage, and how many of them are of its block."""

    rows: int
    new: int


class BlockSource(Protocol):
    """Blocks one after another, by the number of their stage."""

    tasks: tuple[str, ...]

    def next(self, stage: int) -> Block | None:
        """The block of a stage, waited for where it has to be; None where there is none any more."""

    def budget(self, block: Block, stage: int, held: int) -> Budget:
        """`held`: rows of the memory before."""

    def commit(self, stage: int) -> tuple[tuple[FileStamp, ...], dict[str, Any]]:
        """Files and metrics of the source that belong into the record of a stage."""

    def committed(self, stage: int) -> None:
        """Told after the record is written."""

    def stop(self) -> None:
        """Let go of whoever waits in `next`: the run ends."""


class Trained(NamedTuple):
    """Checkpoint of a block, written but not committed."""

    block: Block
    stamp: FileStamp
    loss: float
    seconds: float
    metrics: dict[str, Any]


# Looks at the reference before it learns a block; raises where it should not go on.
Examine = Callable[[Any, Block, int], dict[str, Any]]
# Looks at the memory before a stage by asking the distiller; returns metrics of the stage.
Probe = Callable[[Any, int], dict[str, Any]]


class Driver:
    def __init__(
        self,
        source: BlockSource,
        run: Run,
        config: RunConfig,
        data: str,
        url: str,
        planned: Plan,
        lease: Lease,
        lent: LentReference | None = None,
        scores: str | None = None,
        examine: Examine = lambda reference, block, stage: {},
        probe: Probe = lambda distiller, stage: {},
    ) -> None:
        """lent: in place of a reference that learns; scores: where runs that share it keep their scores."""
        self.source, self.run, self.config, self.lease = source, run, config, lease
        self.lent, self.examine, self.probe = lent, examine, probe
        claim = {"num_cpus": planned.num_cpus, "num_gpus": planned.num_gpus}
        made = (data, url, config.model_dump(mode="json"), planned.threads)
        self.reference = remote(ReferenceModel).options(**claim).remote(*made)
        self.scorers = [remote(Scorer).options(**claim).remote(*made, scores) for _ in range(planned.scorers)]
        self.distiller = remote(Distiller).options(**claim).remote(*made)
        actors = [self.reference, *self.scorers, self.distiller]
        self.watch = ClusterWatch(planned, actors, lambda told: console.print(f"[yellow]{told}"))

    def run_stages(self, shown: Bars) -> None:
        """Stage after stage until the source has no more blocks."""
        with user_errors(), self.watch, ThreadPoolExecutor(1) as ahead:
            training: Future[Trained | None] = ahead.submit(self._train, self.run.stage + 1, shown)
            try:
                while trained := training.result():
                    training = ahead.submit(self._train, self.run.stage + 2, shown)
                    self._stage(self.run.stage + 1, trained, shown)
            finally:
                self.source.stop()

    def _train(self, stage: int, shown: Bars) -> Trained | None:
        block = self.source.next(stage)
        if block is None:
            return None
        started = time.perf_counter()
        if self.lent:
            return Trained(block, *self.lent.copy(stage, self.run), time.perf_counter() - started, {})
        metrics = self.examine(self.reference, block, stage)
        with shown.bar(f"reference learns block {block.name}", block.rows, "rows") as bar:
            call = self.reference.train.options(num_returns="streaming").remote(stage)
            stamp, loss = finished(call, bar.advance)
        return Trained(block, stamp, loss, time.perf_counter() - started, metrics)

    def _stage(self, stage: int, trained: Trained, shown: Bars) -> None:
        block, clock = trained.block, Clock()
        held = self.run.records[-1].metrics["memory"]["rows"] if stage > 1 else 0
        budget = self.source.budget(block, stage, held)
        scorer = ScorerPool(self.scorers, block, stage, len(self.source.tasks))
        missing = self._missing_groups(block)
        for group in missing:
            console.print(
                f"[yellow]block {block.name} has no row of label group {group}, which earlier blocks had"
            )
        chosen = scorer.collect(boundary_rows(scorer, budget.new, self.config.method.boundary))
        draw = numpy_generator(self.config.seed, "pool", stage)
        pool = scorer.collect(random_rows(scorer, self.config.pool_rows, draw))
        hardness = pool.hardness()
        clock.lap("score")
        if probed := self.probe(self.distiller, stage):
            clock.lap("probe")
        iterations = self.config.method.outer.iterations
        with shown.bar(f"stage {stage}: optimising {budget.rows:,} rows", iterations, "iterations") as bar:
            call = self.distiller.distil.options(num_returns="streaming")
            stamp, memory = finished(call.remote(stage, budget.rows, chosen, pool), bar.advance)
        clock.lap("distil")
        files, of_source = self.source.commit(stage)
        metrics = {
            "memory": memory,
            "block_rows": block.rows,
            "label_groups": {str(group): n for group, n in block.label_groups.items()},
            "missing_label_groups": missing,
            "training_loss": trained.loss,
            "el2n": {"mean": float(hardness.mean()), "deviation": float(hardness.std())},
            "seconds": {"train": trained.seconds, **clock.seconds},
            **trained.metrics,
            **probed,
            **of_source,
        }
        self.lease.check()
        self.run.commit(block.name, (trained.stamp, stamp, *files), metrics)
        self.source.committed(stage)
        console.print(f"stage {stage} committed: {memory['rows']:,} rows of memory from block {block.name}")

    def _missing_groups(self, block: Block) -> list[str]:
        """Label groups of earlier blocks that this one lacks, as task names."""
        earlier = {int(group) for record in self.run.records for group in record.metrics["label_groups"]}
        return [group_name(group, self.source.tasks) for group in sorted(earlier - block.label_groups.keys())]


class Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def finished(stream: Iterator[Any], advance: Any) -> Any:
    """Follow a streaming actor method to its result."""
    with user_errors():
        for ref in stream:
            kind, value = ray.get(ref)
            if kind == "done":
                return value
            advance(value)
    raise RuntimeError("an actor ended without a result")

"""Distil a prepared log block by block: the driver of reference model, scorers and distiller.

The reference trains on block t+1 while block t is scored and distilled. A stage exists once its record is
committed; started again, the run goes on after the last one and ends with the same memory, bit for bit, on
the same number of threads.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import ray
import tyro

from actors.cluster import Plan, ResourceConfig, connect, own_errors, plan
from actors.distiller import Distiller
from actors.reference import ReferenceModel
from actors.run_worker import memory_path, remote
from actors.scoring import Scorer, ScorerPool
from diet_ray.config import RunConfig
from diet_ray.lease import Lease
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.run import Run
from diet_ray.scoring import group_name
from diet_ray.seeding import numpy_generator
from diet_ray.selection import boundary_rows, random_rows
from diet_ray.stage import budget
from diet_ray.storage import FileStamp, Folder, absolute
from pipelines.command import option, run_command
from pipelines.lending import LentReference
from pipelines.progress import Bars, bars, console
from pipelines.recipe import Recipe, load_recipe

LOG_OF_RUN = "log.json"  # where the log was; not part of what the run is


@dataclass(frozen=True)
class Distill:
    """Distil every historical block of a prepared log into a memory; started again, it goes on.

    $ diet-ray distill --data data/globo --run runs/globo

    $ diet-ray distill --config globo --data data/globo --run runs/globo-1 --seed 1 --ratio 0.02

    $ diet-ray distill --config my.yaml --data s3://bucket/log --run s3://bucket/run --resources.num-gpus 1

    The memory is RUN/memory/NNNN/memory.parquet, one per block; the last one is what candidates train on.
    """

    data: str
    """Directory of a prepared log."""
    run: str
    """Directory of the run; new, or one to go on with."""
    config: str | None = None
    """A recipe (globo, kuairand, tmall, taobao, demo, paper) or a YAML file; options below override it."""
    reference_of: str | None = None
    """A finished run whose reference model is used instead of training one; it must fit in every setting."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()

    @classmethod
    def defaults(cls) -> "Distill":
        """What holds where no option says otherwise: the recipe that --config names."""
        named = option("--config")
        return cls(tyro.MISSING, tyro.MISSING, settings=load_recipe(named) if named else Recipe())

    def __call__(self) -> None:
        config, resources = self.settings.run_config(), self.settings.resources
        distill(self.data, self.run, config, resources, self.reference_of)


class Trained(NamedTuple):
    """Checkpoint of a block, written but not committed."""

    stamp: FileStamp
    loss: float
    seconds: float


def distill(
    data: str, run: str, config: RunConfig, resources: ResourceConfig, reference_of: str | None = None
) -> Run:
    """Distil every historical block of the log at `data` into the run directory; return the run.

    reference_of: a finished run that lends its checkpoints.
    """
    data, run = absolute(data), absolute(run)
    log = PreparedLog.open(data)
    known = {**config.model_dump(mode="json"), "log": log.name, "fingerprint": log.fingerprint}
    lent = LentReference(reference_of, config, log.fingerprint, len(log.history)) if reference_of else None
    with Lease(Folder.at(run)) as lease:
        opened = Run.open(run, known)
        opened.folder.write_json(LOG_OF_RUN, {"data": data})
        if opened.stage == len(log.history):
            console.print(f"{run} is complete: {opened.stage} stages, {memory_path(opened.stage)}")
            return opened
        found = connect()
        planned = plan(found, resources)
        console.print(f"{found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs: {planned.told()}")
        if opened.stage:
            console.print(f"going on after stage {opened.stage}")
        driver = Driver(log, opened, config, data, run, planned, lent, lease)
        with bars() as shown, ThreadPoolExecutor(1) as ahead:
            driver.run_stages(shown, ahead)
    return opened


class Driver:
    """Decides what comes next and commits."""

    def __init__(
        self,
        log: PreparedLog,
        run: Run,
        config: RunConfig,
        data: str,
        url: str,
        planned: Plan,
        lent: LentReference | None,
        lease: Lease,
    ) -> None:
        self.log, self.run, self.config, self.lent, self.lease = log, run, config, lent, lease
        claim = {"num_cpus": planned.num_cpus, "num_gpus": planned.num_gpus}
        made = (data, url, config.model_dump(mode="json"), planned.threads)
        self.reference = remote(ReferenceModel).options(**claim).remote(*made)
        self.scorers = [remote(Scorer).options(**claim).remote(*made) for _ in range(planned.scorers)]
        self.distiller = remote(Distiller).options(**claim).remote(*made)

    def run_stages(self, shown: Bars, ahead: ThreadPoolExecutor) -> None:
        history = self.log.history
        training: Future[Trained] = ahead.submit(self._train, self.run.stage + 1, shown)
        for stage in range(self.run.stage + 1, len(history) + 1):
            trained = training.result()
            if stage < len(history):
                training = ahead.submit(self._train, stage + 1, shown)
            self._stage(stage, trained, shown)

    def _train(self, stage: int, shown: Bars) -> Trained:
        started = time.perf_counter()
        if self.lent:
            return Trained(*self.lent.copy(stage, self.run), time.perf_counter() - started)
        block = self.log.history[stage - 1]
        with shown.bar(f"reference learns block {block.name}", block.rows, "rows") as bar:
            call = self.reference.train.options(num_returns="streaming").remote(stage)
            stamp, loss = _finished(call, bar.advance)
        return Trained(stamp, loss, time.perf_counter() - started)

    def _stage(self, stage: int, trained: Trained, shown: Bars) -> None:
        block, clock = self.log.history[stage - 1], Clock()
        rows = budget(self.config, sum(b.rows for b in self.log.history[:stage]))
        held = self.run.records[-1].metrics["memory"]["rows"] if stage > 1 else 0
        scorer = ScorerPool(self.scorers, block, stage, len(self.log.tasks))
        boundary = self.config.method.boundary
        new = min(boundary.new_rows(rows, held), block.rows)
        missing = self._missing_groups(block, stage)
        for group in missing:
            console.print(
                f"[yellow]block {block.name} has no row of label group {group}, which earlier blocks had"
            )
        chosen = scorer.collect(boundary_rows(scorer, new, boundary))
        draw = numpy_generator(self.config.seed, "pool", stage)
        pool = scorer.collect(random_rows(scorer, self.config.pool_rows, draw))
        clock.lap("score")
        iterations = self.config.method.outer.iterations
        with shown.bar(f"stage {stage}: optimising {rows:,} rows", iterations, "iterations") as bar:
            call = self.distiller.distil.options(num_returns="streaming").remote(stage, rows, chosen, pool)
            stamp, memory = _finished(call, bar.advance)
        clock.lap("distil")
        metrics = {
            "memory": memory,
            "block_rows": block.rows,
            "label_groups": {str(group): n for group, n in block.label_groups.items()},
            "missing_label_groups": missing,
            "training_loss": trained.loss,
            "seconds": {"train": trained.seconds, **clock.seconds},
        }
        self.lease.check()
        self.run.commit(block.name, (trained.stamp, stamp), metrics)
        console.print(f"stage {stage} committed: {memory['rows']:,} rows of memory from block {block.name}")

    def _missing_groups(self, block: Block, stage: int) -> list[str]:
        """Label groups of earlier blocks that this one lacks, as task names."""
        earlier = {group for b in self.log.history[: stage - 1] for group in b.label_groups}
        return [group_name(group, self.log.tasks) for group in sorted(earlier - block.label_groups.keys())]


class Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def _finished(stream: Iterator[Any], advance: Any) -> Any:
    """Follow a streaming actor method to its result."""
    with own_errors():
        for ref in stream:
            kind, value = ray.get(ref)
            if kind == "done":
                return value
            advance(value)
    raise RuntimeError("an actor ended without a result")


if __name__ == "__main__":
    sys.exit(run_command(Distill, "diet-ray distill", Distill.defaults))

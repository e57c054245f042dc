"""Distil a prepared log block by block.

A stage exists once its record is committed; started again, the run goes on after the last one and ends with
the same memory, bit for bit, on the same number of threads.
"""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from actors.cluster import ResourceConfig, plan
from actors.connection import connect
from actors.worker import memory_path
from diet_ray.config import RunConfig
from diet_ray.distillation.stage import budget
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.runs.lease import Lease
from diet_ray.runs.run import Run
from diet_ray.storage import FileStamp, Folder, absolute
from pipelines.runtime.command import option, run_command
from pipelines.runtime.driver import Budget, Driver
from pipelines.runtime.progress import bars, console
from pipelines.runtime.recipe import Recipe, load_recipe
from pipelines.runtime.reference_reuse import LentReference

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


def distill(
    data: str,
    run: str,
    config: RunConfig,
    resources: ResourceConfig,
    reference_of: str | None = None,
    scores: str | None = None,
) -> Run:
    """Distil every historical block of the log at `data` into the run directory; return the run.

    reference_of: a finished run that lends its checkpoints.
    scores: the run in whose directory runs with that reference share the scores of its blocks.
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
        driver = Driver(History(log, config), opened, config, data, run, planned, lease, lent, scores)
        with bars() as shown:
            driver.run_stages(shown)
    return opened


class History:
    """The historical blocks of a prepared log."""

    def __init__(self, log: PreparedLog, config: RunConfig) -> None:
        self.log, self.config, self.tasks = log, config, log.tasks

    def next(self, stage: int) -> Block | None:
        return self.log.block(stage) if stage <= len(self.log.history) else None

    def budget(self, block: Block, stage: int, held: int) -> Budget:
        rows = budget(self.config, sum(b.rows for b in self.log.history[:stage]))
        return Budget(rows, min(self.config.method.boundary.new_rows(rows, held), block.rows))

    def commit(self, stage: int) -> tuple[tuple[FileStamp, ...], dict[str, Any]]:
        return (), {}

    def committed(self, stage: int) -> None:
        """Nothing is to be done."""

    def stop(self) -> None:
        """Nobody waits here."""


if __name__ == "__main__":
    sys.exit(run_command(Distill, "diet-ray distill", Distill.defaults))

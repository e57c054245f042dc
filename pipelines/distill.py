"""Distill a prepared log block by block.

A stage exists once its record is committed; rerun after an interruption, the run resumes after the last
committed stage and ends with the same memory, bit for bit on the same number of threads.
"""

import sys
from functools import partial

from actors.placement import ResourceConfig
from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.distillation.memory_update import check_reference
from diet_ray.lease import Lease
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.runs.history import history_block, history_budget, log_identity
from diet_ray.runs.reference_reuse import ReusedReference
from diet_ray.runs.run import Run
from diet_ray.runs.stage import Budget
from diet_ray.storage import Folder, absolute
from pipelines.options.distill import Distill
from pipelines.runtime.command import keeping, run_command, say_next
from pipelines.runtime.driver import Driver, SourceCommit
from pipelines.runtime.placement import place
from pipelines.runtime.progress import Whole, bars, console
from pipelines.runtime.run_access import kept_stages, trained_text
from pipelines.runtime.verdicts import say_verdict


def execute(options: Distill) -> None:
    config, resources = options.settings.run_config(), options.settings.resources
    distill(options.data, options.run, config, resources, options.reference_of)
    say_verdict(options.data, options.run, options.probe_seeds)
    # All methods, architectures and seeds would be a hundred cells, and as much patience.
    few = ("--methods", "warmup,random,newest,diet,full", "--candidates", "dcn,wukong", "--seeds", "2")
    say_next("evaluate", "--run", options.run, *few)


def distill(
    data: str,
    run: str,
    config: RunConfig,
    resources: ResourceConfig,
    reference_of: str | None = None,
    score_cache: str | None = None,
) -> Run:
    """Distill every historical block of a log over the cluster.

    Args:
        data: URL of the prepared log.
        run: URL of the run; new, or one to resume.
        config: of the run.
        resources: what its actors take.
        reference_of: a finished run whose checkpoints are reused.
        score_cache: the run in whose directory runs with that reference share the scores of its blocks.

    Returns:
        The run.
    """
    data, run = absolute(data), absolute(run)
    log = PreparedLog.open(data)
    check_reference(config, fields=len(log.fields), tasks=len(log.tasks))
    reused = None
    if reference_of:
        reused = ReusedReference(reference_of, config, log.fingerprint, len(log.history))
    with Lease(Folder.at(run)) as lease:
        opened = Run.open(run, {**config.model_dump(mode="json"), **log_identity(log)})
        opened.folder.write_json(layout.LOG_LOCATION, {"data": data})
        if opened.stage == len(log.history):
            console.print(f"{run} is complete: {opened.stage} stages, {layout.memory(opened.stage)}")
            return opened
        if reused:  # it learns nothing
            resources = resources.model_copy(update={"reference_workers": 1})
        placed = place(resources)
        if opened.stage:
            console.print(f"resuming after stage {opened.stage}{trained_text(opened)}")
        driver = Driver(
            History(log, config),
            opened,
            data=data,
            url=run,
            config=config,
            plan=placed,
            lease=lease,
            reused=reused,
            score_cache=score_cache,
        )
        missing = tuple(block.rows for block in log.history[opened.stage :])
        whole = Whole(len(log.history), opened.stage, missing)
        with keeping(partial(kept_stages, opened)), bars(whole) as shown:
            driver.run_stages(shown)
    return opened


class History:
    """The historical blocks of a prepared log, as a BlockSource."""

    def __init__(self, log: PreparedLog, config: RunConfig) -> None:
        self.log, self.config, self.tasks = log, config, log.tasks

    def next(self, stage: int) -> Block | None:
        return history_block(self.log, stage)

    def budget(self, block: Block, stage: int, old_rows: int) -> Budget:
        return history_budget(self.log, self.config, stage, old_rows)

    def commit(self, stage: int) -> SourceCommit:
        return SourceCommit()

    def committed(self, stage: int) -> None:
        """Nothing follows a commit."""

    def stop(self) -> None:
        """Nobody waits in `next`."""


if __name__ == "__main__":
    sys.exit(run_command(Distill, "diet-ray distill", Distill.defaults))

"""A whole distillation in this process, without Ray: for notebooks, small logs and tests."""

import logging
import time
from collections.abc import Callable
from functools import partial

import torch

from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.distillation.addressing import BlockInfluence
from diet_ray.distillation.memory_update import block_influence, check_reference
from diet_ray.distillation.pool import Pool
from diet_ray.distillation.scored_rows import Columns, LocalScorer, PartScorer
from diet_ray.evaluation.evaluator import Evaluator
from diet_ray.evaluation.methods import PROBE_SEEDS
from diet_ray.evaluation.verdicts.memory_probe import judged
from diet_ray.lease import Lease
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.runs.history import history_budget, log_identity
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.reference_reuse import ReusedReference
from diet_ray.runs.run import Run
from diet_ray.runs.stage import TrainedBlock, missing_groups, run_stage
from diet_ray.runs.stage_memory import DistilledMemory, StageMemory
from diet_ray.runs.state import RunState
from diet_ray.runs.trained import Trained, trained_once
from diet_ray.storage import FileStamp, Folder, absolute
from diet_ray.training.device import default_device

logger = logging.getLogger(__name__)


class LocalWorkers:
    """StageWorkers in this process."""

    def __init__(self, state: RunState, score_cache: str | None) -> None:
        self.state, self.score_cache = state, score_cache
        self.memory = StageMemory(state)

    def scorer(self, stage: int, block: Block) -> LocalScorer:
        cache = Folder.at(f"{self.score_cache}/{layout.scores(stage)}") if self.score_cache else None
        parts = PartScorer(self.state.checkpoint(stage), self.state.log, block, cache)
        return LocalScorer(parts, self.state.config.method.outer.target_labels)

    def directions(self, stage: int, rows: int, boundary: Columns) -> BlockInfluence:
        directions = self.memory.directions(stage, rows, boundary)
        device = torch.device(default_device())
        return block_influence(self.state.log, self.state.config, directions, device)

    def distill(self, stage: int, rows: int, boundary: Columns, pool: Pool) -> DistilledMemory:
        return self.memory.distill(stage, rows, boundary, pool)

    def probe(self, stage: int) -> None:
        return None


def distill(
    log: str,
    run: str,
    config: RunConfig | None = None,
    report: Callable[[str], None] = logger.info,
    reference_of: str | None = None,
    score_cache: str | None = None,
    probe_seeds: int = PROBE_SEEDS,
) -> Run:
    """Distill every historical block of a prepared log, one after another, in this process.

    The result is the same as that of `diet-ray distill`, bit for bit on the same number of threads, and
    either may resume what the other began.

    Args:
        log: directory or fsspec URL of a prepared log.
        run: directory of the run; new, or one to resume.
        config: of the run; the defaults where it is None.
        report: called with a line of text after every stage, as `print` for a notebook; by default the line
            is logged at level INFO, which Python shows where logging is set up to.
        reference_of: a finished run whose checkpoints are reused instead of training.
        score_cache: the run in whose directory runs with one reference share the scores of their blocks.
        probe_seeds: seeds of the probe that judges the memory at the end (RUN/evaluation/verdict.json); its
            verdict goes to `report`. 0: no probe.

    Returns:
        The run, with one committed stage per block.

    Raises:
        ConfigError: where a model of the reference cannot be built.
        DataError: where the log is missing or damaged.
        RunError: where the directory holds a run of a different config, or another process writes it.

    Example:
        >>> import diet_ray
        >>> config = diet_ray.RunConfig(
        ...     ratio=0.05,
        ...     dim=4,
        ...     reference={"name": "finalnet", "ensemble": ()},
        ...     method={"inner": {"horizon": 5}, "outer": {"iterations": 2}},
        ... )
        >>> run = diet_ray.distill("data/demo", "runs/small", config)
        >>> run.stage  # one per historical block
        3
        >>> run.records[-1].metrics.memory.rows == diet_ray.load_memory("runs/small").num_rows
        True
    """
    config = config or RunConfig()
    prepared, url = PreparedLog.open(log), absolute(run)
    folder = Folder.at(url)
    check_reference(config, fields=len(prepared.fields), tasks=len(prepared.tasks))
    state = RunState(prepared, folder, config)
    reused = None
    if reference_of:
        reused = ReusedReference(reference_of, config, prepared.fingerprint, len(prepared.history))
    with Lease(folder) as lease:
        opened = Run.open(url, {**config.model_dump(mode="json"), **log_identity(prepared)})
        folder.write_json(layout.LOG_LOCATION, {"data": absolute(log)})
        trainer, workers = ReferenceTrainer(state), LocalWorkers(state, score_cache)
        for stage in range(opened.stage + 1, len(prepared.history) + 1):
            train = partial(reused.copy, stage, opened) if reused else partial(trainer.train, stage)
            trained = _trained(folder, stage, prepared.block(stage), train)
            old_rows = opened.records[-1].metrics.memory.rows if opened.records else 0
            budget = history_budget(prepared, config, stage, old_rows)
            missing = missing_groups(opened.records, trained.block, prepared.tasks)
            finished = run_stage(stage, trained, budget, workers, config, missing)
            lease.check()
            opened.commit(trained.block.name, finished.files, finished.metrics)
            report(f"stage {stage}: {finished.metrics.memory.rows:,} rows of memory")
    if probe_seeds:
        report(judged(Evaluator(state, url), probe_seeds))
    return opened


def _trained(
    folder: Folder, stage: int, block: Block, train: Callable[[], tuple[tuple[FileStamp, ...], float]]
) -> TrainedBlock:
    def timed() -> Trained:
        started = time.perf_counter()
        files, loss = train()
        return Trained(files, loss, time.perf_counter() - started)

    return TrainedBlock(block, *trained_once(folder, stage, block, timed))

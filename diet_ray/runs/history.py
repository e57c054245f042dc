"""The historical blocks of a prepared log as the stages of a run."""

from diet_ray.config import RunConfig
from diet_ray.distillation.memory_update import memory_rows
from diet_ray.log.dataset import Block, EncodedLog, PreparedLog
from diet_ray.runs.stage import Budget


def history_budget(log: PreparedLog, config: RunConfig, stage: int, old_rows: int) -> Budget:
    """Rows of memory after `stage`, of which at most `old_rows` can be kept from before."""
    rows = memory_rows(config, sum(block.rows for block in log.history[:stage]))
    new_rows = min(config.method.boundary.new_rows(rows, old_rows), log.block(stage).rows)
    return Budget(rows, new_rows)


def history_block(log: PreparedLog, stage: int) -> Block | None:
    """The block of a stage; None after the last one."""
    return log.block(stage) if stage <= len(log.history) else None


def log_identity(log: EncodedLog) -> dict[str, str]:
    """What a run's config.yaml says of its log."""
    return {"log": log.name, "fingerprint": log.fingerprint}

"""Health of a stream: its newest record, and the drift of the log."""

from statistics import mean
from typing import Any

from diet_ray.log.stream.log import StreamLog
from diet_ray.runs.records import StageRecord
from diet_ray.runs.run import Run

RECENT = 5  # stages that drift is measured against
GAUGES = {
    "stage": "newest committed stage",
    "block_rows": "rows of its block",
    "rows_per_second": "rows of a block over seconds from its close to its commit",
    "seconds_to_commit": "from the close of a block to its commit",
    "closed_at": "when the newest committed block closed, seconds since 1970 UTC",
    "rows_waiting": "rows that were read and belong to no committed block",
    "unread": "files or messages that wait to be read",
    "memory_rows": "rows of the newest memory",
    "training_loss": "of the reference on the newest block",
    "progressive_auc": "of the reference on the block before it learned it",
    "probe_auc": "of a small candidate trained on the memory, on the block after it",
    "el2n": "mean over the newest block",
    "el2n_drift": "relative to the blocks before",
}


def health(run: Run) -> dict[str, Any]:
    """What the newest record of a stream says, in plain values; drift is relative to RECENT stages."""
    record = run.records[-1]
    metrics, tasks = record.metrics, StreamLog.open(run.folder).tasks
    stream = metrics.stream
    assert stream is not None
    earlier = run.records[-1 - RECENT : -1]
    rates = label_rates(record, tasks)
    el2n = metrics.el2n.mean
    return {
        "stage": record.stage,
        "block_rows": metrics.block_rows,
        "rows_per_second": metrics.block_rows / max(stream.seconds_to_commit, 1e-9),
        "seconds_to_read": stream.seconds_to_read,
        "seconds_to_commit": stream.seconds_to_commit,
        "seconds": metrics.seconds.model_dump(exclude_none=True),
        "closed_at": stream.closed_at,
        "rows_waiting": stream.rows_waiting,
        "unread": stream.unread,
        "memory_rows": metrics.memory.rows,
        "memory_rows_by_stage": metrics.memory.rows_by_stage,
        "training_loss": metrics.training_loss,
        "progressive_auc": metrics.progressive.auc if metrics.progressive else None,
        **newest_probe(run),
        "el2n": el2n,
        "el2n_drift": el2n - mean(each.metrics.el2n.mean for each in earlier) if earlier else None,
        "label_rates": rates,
        "label_rates_drift": {
            task: rate - mean(label_rates(each, tasks)[task] for each in earlier)
            for task, rate in rates.items()
            if earlier
        },
        "quarantined": stream.counts,
    }


def label_rates(record: StageRecord, tasks: tuple[str, ...]) -> dict[str, float]:
    """Share of a block's rows in which each task is 1."""
    metrics = record.metrics
    return {
        task: sum(rows for group, rows in metrics.label_groups.items() if group >> number & 1)
        / metrics.block_rows
        for number, task in enumerate(tasks)
    }


def newest_probe(run: Run) -> dict[str, Any]:
    """The last probe and the stage on whose block it was scored; None where there was none yet."""
    for record in reversed(run.records):
        if probe := record.metrics.probe:
            return {"probe_auc": probe.auc, "probe_stage": record.stage}
    return {"probe_auc": None, "probe_stage": None}

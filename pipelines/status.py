"""The state of a stream, read from its run directory: it may be running elsewhere, or dead."""

import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from diet_ray.errors import RunError
from diet_ray.lease import holder_of
from diet_ray.runs.run import Run
from pipelines.options.status import Status
from pipelines.runtime.command import run_command
from pipelines.runtime.health import GAUGES, health

NEWEST = 4  # stages whose rows of the memory are shown singly
MEANING = {
    **GAUGES,
    "written_by": "process that holds the lease",
    "seconds_since_newest_block": "how old the memory is",
    "seconds_to_read": "reading and encoding the block",
    "seconds": "training, scoring and distilling it",
    "closed_at": "when the newest block closed, UTC",
    "memory_rows_by_stage": "by the stage whose block they are from",
    "probe_stage": "stage of the newest probe",
    "label_rates": "share of rows with each label",
    "label_rates_drift": "against the blocks before",
    "quarantined": "of the newest block, by reason",
    "seconds_to_commit_median": "of all stages",
    "seconds_to_commit_p99": "of all stages",
    "progressive_auc_last_five": "mean of the newest five stages",
    "quarantined_in_all": "since the stream began, by reason",
    "rows_in_all": "rows of all blocks",
}


def execute(options: Status) -> None:
    state = status(Run.read(options.run))
    if options.json:
        print(json.dumps(state, indent=1, sort_keys=True))
        return
    Console().print(status_table(state))


def status_table(state: dict[str, Any]) -> Table:
    """Name, value and meaning of everything that `status` returns."""
    shown = Table(show_header=False, title="State of the stream")
    for _ in range(3):
        shown.add_column(overflow="fold")
    state = {
        **state,
        "closed_at": datetime.fromtimestamp(state["closed_at"], UTC).isoformat(" ", "seconds"),
        "memory_rows_by_stage": newest_counts(state["memory_rows_by_stage"]),
    }
    for name, value in state.items():
        shown.add_row(name.replace("_", " "), _text(value), MEANING[name])
    return shown


def newest_counts(rows_by_stage: dict[int, int]) -> dict[str, int]:
    """The rows of the newest stages, and those of all older ones together."""
    newest = sorted(rows_by_stage, reverse=True)[:NEWEST]
    older = sum(rows for stage, rows in rows_by_stage.items() if stage not in newest)
    shown = {str(stage): rows_by_stage[stage] for stage in newest}
    return {**shown, "older": older} if older else shown


def status(run: Run) -> dict[str, Any]:
    """Health of the newest stage, and latencies and drift over all stages.

    Raises RunError where the run is not a stream, or has no stage yet.
    """
    if "stream" not in run.config:
        raise RunError(f"{run.folder.root} is not a stream; see `diet-ray inspect`")
    if not run.records:
        raise RunError(f"{run.folder.root} has no committed stage yet; written by {holder_of(run.folder)}")
    stages = [record.metrics for record in run.records]
    streams = [metrics.stream for metrics in stages if metrics.stream]
    latency = [stream.seconds_to_commit for stream in streams]
    progressive = [metrics.progressive.auc for metrics in stages if metrics.progressive]
    quarantined: Counter[str] = Counter()
    for stream in streams:
        quarantined.update(stream.counts)
    return {
        "written_by": holder_of(run.folder),
        "seconds_since_newest_block": time.time() - streams[-1].closed_at,
        **health(run),
        "seconds_to_commit_median": float(np.median(latency)),
        "seconds_to_commit_p99": float(np.quantile(latency, 0.99)),
        "progressive_auc_last_five": float(np.mean(progressive[-5:])) if progressive else None,
        "quarantined_in_all": dict(quarantined),
        "rows_in_all": sum(metrics.block_rows for metrics in stages),
    }


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(each)}" for key, each in value.items()) or "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(run_command(Status, "diet-ray status"))

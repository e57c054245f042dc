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
from diet_ray.runs.lease import holder_of
from diet_ray.runs.run import Run
from pipelines.options.status import Status
from pipelines.runtime.command import run_command
from pipelines.runtime.health import health


def execute(options: Status) -> None:
    state = status(Run.read(options.run))
    if options.json:
        print(json.dumps(state, indent=1, sort_keys=True))
        return
    shown = Table("", "", show_header=False)
    state["closed_at"] = datetime.fromtimestamp(state["closed_at"], UTC).isoformat(" ", "seconds")
    for name, value in state.items():
        shown.add_row(name.replace("_", " "), _text(value))
    Console().print(shown)


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
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(run_command(Status, "diet-ray status"))

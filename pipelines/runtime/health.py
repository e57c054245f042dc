"""How a stream is: what its newest record says, and how far the log has drifted."""

import json
from statistics import mean
from typing import Any

from ray.util.metrics import Gauge

from diet_ray.log.stream.log import StreamLog
from diet_ray.runs.run import Run, StageRecord

EARLIER = 5  # stages that drift is told against


class Health:
    """Tells how the stream is after each stage: Ray's metrics (Prometheus), and a line of JSON if asked."""

    def __init__(self, run: Run, *, json_log: bool) -> None:
        self.run, self.json_log = run, json_log
        self.gauges = {
            name: Gauge(f"diet_ray_{name}", description)
            for name, description in (
                ("stage", "newest committed stage"),
                ("rows_per_second", "rows of a block over seconds from its close to its commit"),
                ("seconds_to_commit", "from the close of a block to its commit"),
                ("memory_rows", "rows of the newest memory"),
                ("not_read", "files or messages that wait to be read"),
                ("progressive_auc", "of the reference on the block before it learned it"),
                ("probe_auc", "of a small candidate trained on the memory, on the block after it"),
                ("el2n", "mean over the newest block"),
                ("el2n_drift", "against the blocks before"),
            )
        }

    def __call__(self) -> None:
        told = health(self.run)
        for name, gauge in self.gauges.items():
            if told[name] is not None:
                gauge.set(told[name])
        if self.json_log:
            print(json.dumps(told, sort_keys=True), flush=True)


def health(run: Run) -> dict[str, Any]:
    """What the newest record of a stream says, in plain values; drift is against EARLIER stages."""
    record = run.records[-1]
    metrics, tasks = record.metrics, StreamLog.open(run.folder).tasks
    earlier = run.records[-1 - EARLIER : -1]
    rates = label_rates(record, tasks)
    el2n = metrics["el2n"]["mean"]
    return {
        "stage": record.stage,
        "block_rows": metrics["block_rows"],
        "rows_per_second": metrics["block_rows"] / max(metrics["seconds_to_commit"], 1e-9),
        "seconds_to_read": metrics["seconds_to_read"],
        "seconds_to_commit": metrics["seconds_to_commit"],
        "seconds": metrics["seconds"],
        "closed_at": metrics["closed_at"],
        "rows_read_ahead": metrics["lag"]["rows_read"],
        "not_read": metrics["lag"]["not_read"],
        "memory_rows": metrics["memory"]["rows"],
        "memory_rows_by_stage": metrics["memory"]["rows_by_stage"],
        "training_loss": metrics["training_loss"],
        "progressive_auc": metrics.get("progressive", {}).get("auc"),
        **newest_probe(run),
        "el2n": el2n,
        "el2n_drift": el2n - mean(each.metrics["el2n"]["mean"] for each in earlier) if earlier else None,
        "label_rates": rates,
        "label_rates_drift": {
            task: rate - mean(label_rates(each, tasks)[task] for each in earlier)
            for task, rate in rates.items()
            if earlier
        },
        "set_aside": metrics["stream"]["counts"],
    }


def label_rates(record: StageRecord, tasks: tuple[str, ...]) -> dict[str, float]:
    """Share of a block's rows in which each task is 1."""
    groups = {int(group): rows for group, rows in record.metrics["label_groups"].items()}
    return {
        task: sum(rows for group, rows in groups.items() if group >> number & 1)
        / record.metrics["block_rows"]
        for number, task in enumerate(tasks)
    }


def newest_probe(run: Run) -> dict[str, Any]:
    """The last probe and the stage on whose block it was scored; None where there was none yet."""
    for record in reversed(run.records):
        if probed := record.metrics.get("probe"):
            return {"probe_auc": probed["auc"], "probe_stage": record.stage}
    return {"probe_auc": None, "probe_stage": None}

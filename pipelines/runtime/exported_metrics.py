"""What a stream sets after each stage: Ray's metrics, which Prometheus scrapes."""

import json
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from diet_ray.runs.run import Run
from pipelines.runtime.health import GAUGES, health

ROWS = "rows"  # the counter of committed rows
# Counter -> the reason under which a commit record counts the same.
SET_ASIDE = {
    "late_rows": "late",
    "ahead_rows": "ahead",
    "duplicate_rows": "duplicates",
    "malformed_rows": "malformed",
    "skipped_rows": "skipped",
    "unreadable_files": "files_quarantined",
}
COUNTERS = {
    ROWS: "rows of committed blocks",
    "late_rows": "rows quarantined because they came too late",
    "ahead_rows": "rows quarantined because they lie ahead of the clock",
    "duplicate_rows": "rows dropped because their event was taken before",
    "malformed_rows": "rows quarantined because they cannot be read",
    "skipped_rows": "rows quarantined by --skip-block",
    "unreadable_files": "files and messages of which nothing could be read",
}
COMMIT = "commit_seconds"  # the histogram
HISTOGRAMS = {COMMIT: "seconds from the close of a block to its commit"}
COMMIT_SECONDS = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]
PREFIX = "diet_ray_"
TAGS = ("run",)  # several streams may share a cluster


class Health:
    """Reports the health of a stream after each stage: Ray's metrics (Prometheus), and a line of JSON.

    Counters begin at 0 in each process, as Prometheus expects; the totals of a run are those of `status`.
    """

    def __init__(self, run: Run, *, json_log: bool) -> None:
        self.run, self.json_log = run, json_log
        self.gauges = {name: Gauge(PREFIX + name, text, TAGS) for name, text in GAUGES.items()}
        self.counters = {name: Counter(PREFIX + name, text, TAGS) for name, text in COUNTERS.items()}
        self.commit_seconds = Histogram(PREFIX + COMMIT, HISTOGRAMS[COMMIT], COMMIT_SECONDS, TAGS)
        for metric in (*self.gauges.values(), *self.counters.values(), self.commit_seconds):
            metric.set_default_tags({"run": run.folder.root})
        for counter in self.counters.values():
            # `increase()` sees no first event where the series began with it, and `inc` refuses 0.
            counter._record(0)

    def __call__(self) -> None:
        values = health(self.run)
        for name, gauge in self.gauges.items():
            if values[name] is not None:
                gauge.set(values[name])
        for name, amount in counted(values).items():
            if amount:
                self.counters[name].inc(amount)
        self.commit_seconds.observe(values["seconds_to_commit"])
        if self.json_log:
            print(json.dumps(values, sort_keys=True), flush=True)


def counted(values: Mapping[str, Any]) -> dict[str, int]:
    """What each counter grows by with the newest stage."""
    set_aside = {name: values["quarantined"].get(reason, 0) for name, reason in SET_ASIDE.items()}
    return {ROWS: values["block_rows"], **set_aside}

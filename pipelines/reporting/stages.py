"""Sections of a report about the stages of a run: a stream's health, composition, sizes and seconds."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from diet_ray.log.stream.log import StreamLog
from diet_ray.runs.metrics import StageMetrics
from diet_ray.runs.records import StageRecord
from diet_ray.runs.run import Run
from pipelines.reporting import charts
from pipelines.reporting.page import Part, Text, Value, chart, table
from pipelines.reporting.sizes import size_text
from pipelines.runtime.health import label_rates

MOST = 12  # stages of which each has a row
GROUPS = 10  # rows of a summary of more

HEAD = ["stages", "rows", "rows of memory", "memory", "checkpoint", "training loss", "outer loss", "seconds"]


def stages(records: list[StageRecord]) -> Iterator[Part]:
    """A row per stage, of many a row per group of them; and where the time went."""
    if not records:
        return
    groups = [[record] for record in records]
    if len(records) > MOST:
        groups = [[records[n] for n in part] for part in np.array_split(np.arange(len(records)), GROUPS)]
        yield Text(
            f"{len(records)} stages in {GROUPS} groups: rows and seconds are sums, losses means, sizes "
            "those of the last stage of the group. `diet-ray inspect` shows each."
        )
    yield from table(HEAD, [_row(group) for group in groups])
    yield chart(
        charts.timeline_chart([record.metrics.seconds for record in records]),
        "Training of a block runs beside scoring and distilling of the block before.",
    )


def _row(group: list[StageRecord]) -> list[Value]:
    first, last = group[0], group[-1]
    one = len(group) == 1
    losses = [record.metrics.memory.outer_loss for record in group if record.metrics.memory.outer_loss]
    ends = [float(np.mean([loss[place] for loss in losses])) for place in (0, -1)] if losses else []
    seconds = sum(sum(getattr(r.metrics.seconds, part) for part in charts.PARTS) for r in group)
    return [
        f"{first.stage}: {first.block}" if one else f"{first.stage} to {last.stage}",
        sum(record.metrics.block_rows for record in group),
        last.metrics.memory.rows,
        size_text(last.memory_stamp().size),
        size_text(last.checkpoint_bytes),
        f"{np.mean([record.metrics.training_loss for record in group]):.4f}",
        f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "not optimised",
        f"{seconds:,.0f}",
    ]


def composition(records: list[StageRecord]) -> Iterator[Part]:
    if not records:
        return
    composed = [record.metrics.memory for record in records]
    yield chart(
        charts.composition_chart([each.rows_by_stage for each in composed]),
        f"{composed[-1].rows:,} rows in the newest memory; by the stages whose blocks they come from.",
    )


def over_stages(
    records: list[StageRecord], values: Mapping[str, Callable[[StageMetrics], float | None]]
) -> pd.DataFrame:
    """Columns stage, name, value: of each name what it gives for the metrics of a stage, unless None."""
    rows = [
        {"stage": record.stage, "name": name, "value": value}
        for name, of in values.items()
        for record in records
        if (value := of(record.metrics)) is not None
    ]
    return pd.DataFrame(rows, columns=["stage", "name", "value"])


def stream(run: Run) -> Iterator[Part]:
    """AUC, drift, lag, and rows that were set aside, over the stages of a stream."""
    records = run.records
    if "stream" not in run.config or not records:
        return
    aucs = over_stages(
        records,
        {
            "reference": lambda m: m.progressive.auc if m.progressive else None,
            "memory": lambda m: m.probe.auc if m.probe else None,
            "newest rows": lambda m: m.probe_newest.auc if m.probe_newest else None,
        },
    )
    if len(aucs):
        yield chart(
            charts.line_chart(aucs, "AUC on the block", ".4f"),
            "Each block is scored before it is learned: by the reference, and now and then by a small "
            "candidate trained on the memory or on as many rows of the block before.",
        )
    yield chart(
        charts.line_chart(over_stages(records, {"EL2N": lambda m: m.el2n.mean}), "mean EL2N", ".4f"),
        "Drift: the difficulty of a block; it rises where the log turns away from what was learned.",
    )
    tasks = StreamLog.open(run.folder).tasks
    rates = [
        {"stage": record.stage, "name": task, "value": rate}
        for record in records
        for task, rate in label_rates(record, tasks).items()
    ]
    yield chart(
        charts.line_chart(pd.DataFrame(rates), "label rate", ".3~g", zero=True),
        "Drift: the share of positive rows.",
    )
    lag = over_stages(
        records,
        {
            "reading": lambda m: m.stream.seconds_to_read if m.stream else None,
            "to the commit": lambda m: m.stream.seconds_to_commit if m.stream else None,
        },
    )
    yield chart(charts.line_chart(lag, "seconds", zero=True), "Lag: from the close of a block to its commit.")
    waiting = over_stages(records, {"rows waiting": lambda m: m.stream.rows_waiting if m.stream else None})
    yield chart(charts.area_chart(waiting, "rows"), "Rows that had been read and waited for a block.")
    yield from _set_aside(records)


def _set_aside(records: list[StageRecord]) -> Iterator[Part]:
    counts = [record.metrics.stream.counts if record.metrics.stream else {} for record in records]
    total: Counter[str] = Counter()
    for own in counts:
        total.update(own)
    if not total.total():
        yield Text("No row was late, doubled or quarantined.")
        return
    reasons = [(reason, count) for reason, count in total.most_common() if count]
    yield from table(
        ["set aside", "number"], [[reason.replace("_", " "), count] for reason, count in reasons]
    )
    series = [
        {"stage": record.stage, "name": reason.replace("_", " "), "value": own.get(reason, 0)}
        for record, own in zip(records, counts, strict=True)
        for reason, _ in reasons[: len(charts.OTHER)]
    ]
    yield chart(
        charts.area_chart(pd.DataFrame(series), "rows set aside"), "Rows and files set aside, by reason."
    )

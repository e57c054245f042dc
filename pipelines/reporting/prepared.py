"""What `prepare` understood of a log, as tables that fit 80 columns."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from diet_ray.log.dataset import Block, PreparedLog, label_rates
from diet_ray.log.preview import Preview

WIDTH = 79
SIDE_BY_SIDE = 8  # from this many fields on, two of them share a line
NAMED = 5  # files that are named of many


def prepared_tables(log: PreparedLog) -> Iterator[RenderableType]:
    """A table per block: rows, span of time, and of each field the known ids and the share without one."""
    for block in log.blocks.values():
        yield Text(
            f"block {block.name}: {block.rows:,} rows, {_span(block.min_ts, block.max_ts)}", style="bold"
        )
        yield _fields(log, block)
        rates = label_rates(block, log.tasks)
        yield Text("labels: " + ", ".join(f"{task} {rate:.4f}" for task, rate in rates.items()))
    yield from _warnings(log)


def preview_tables(preview: Preview) -> Iterator[RenderableType]:
    """The understanding of the first rows: files, types, times, fields, labels, problems."""
    rows = sum(file.rows.num_rows for file in preview.files if file.rows is not None)
    yield Text(f"first rows of {len(preview.files):,} files: {rows:,} rows understood", style="bold")
    yield _files(preview)
    if preview.span:
        yield Text(f"times: {_span(*preview.span)}")
        yield _preview_fields(preview)
        yield Text("labels: " + ", ".join(f"{task} {rate:.4f}" for task, rate in preview.label_rates.items()))
    if preview.outside:
        yield Text(f"{preview.outside:,} of these rows lie outside of every block", style="yellow")
    yield from _quarantined(preview.quarantined)
    yield from (Text(f"problem: {problem}", style="red") for problem in preview.problems)


def unread(names: list[str]) -> Text:
    """Files beside the log that are not read."""
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    return Text(f"not read: {shown} (set files.patterns in the schema to read other files)", style="yellow")


def _fields(log: PreparedLog, block: Block) -> Table:
    missing = log.missing.get(block.name)
    cells = []
    for number, (field, table_rows) in enumerate(zip(log.fields, block.table_rows, strict=True)):
        share = f"{missing[number] / block.rows:.2%}" if missing else "-"
        cells.append((field, f"{table_rows - 1:,}", share))
    headings = ("field", "ids", "missing")
    if len(cells) < SIDE_BY_SIDE:
        return _table(headings, cells)
    half = -(-len(cells) // 2)
    pairs = zip_longest(cells[:half], cells[half:], fillvalue=("", "", ""))
    return _table(headings * 2, [(*left, *right) for left, right in pairs])


def _table(
    headings: tuple[str, ...], rows: Iterable[tuple[str, ...]], text: tuple[str, ...] = ("field",)
) -> Table:
    """A table whose columns are numbers, but for those named in `text`."""
    table = Table(box=SIMPLE_HEAD, width=None, pad_edge=False)
    for heading in headings:
        is_text = heading in text
        table.add_column(
            heading,
            justify="left" if is_text else "right",
            no_wrap=True,
            overflow="ellipsis",
            max_width=WIDTH // 3 if is_text else None,
        )
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _warnings(log: PreparedLog) -> Iterator[RenderableType]:
    for block in log.blocks.values():
        for task, rate in label_rates(block, log.tasks).items():
            if rate in (0, 1):
                yield Text(
                    f"label {task} is {rate:.0f} in every row of block {block.name}: is it read from the right "
                    "column, and with the right condition?",
                    style="yellow",
                )
    if outside := log.left_out["outside of every block"]:
        yield Text(f"{outside:,} rows lie outside of every block and are left out", style="yellow")
    yield from _quarantined(Counter(log.quarantined_by_reason))


def _quarantined(reasons: Counter[str]) -> Iterator[RenderableType]:
    if reasons:
        yield Text(f"{reasons.total():,} rows quarantined:", style="yellow")
        yield _table(("rows", "reason"), [(f"{n:,}", why) for why, n in reasons.most_common()], ("reason",))


def _files(preview: Preview) -> Table:
    cells = []
    for file in preview.files:
        count = "-" if file.rows is None else f"{file.rows.num_rows:,}"
        cells.append((file.name, count, ", ".join(f"{k} {v}" for k, v in file.types.items())))
    return _table(("file", "rows", "types"), cells, ("file", "types"))


def _preview_fields(preview: Preview) -> Table:
    cells = [
        (name, f"{field.distinct:,}", f"{field.missing:.2%}", ", ".join(field.samples))
        for name, field in preview.fields.items()
    ]
    return _table(("field", "ids", "missing", "such as"), cells, ("field", "such as"))


def _span(start: int, end: int) -> str:
    first, last = (
        str(np.datetime64(ms, "ms").astype("datetime64[s]")).replace("T", " ") for ms in (start, end)
    )
    return f"{first} to {last} UTC"

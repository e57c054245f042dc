"""What `prepare` understood of a log, as tables that fit 80 columns."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product, zip_longest
from typing import Literal

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from diet_ray.log.dataset import Block, PreparedLog, label_rates
from diet_ray.log.preparation.preview import Preview

TEXT_WIDTH = 24  # most characters of a name in a table
SIDE_BY_SIDE = 8  # from this many fields on, two of them share a line
NAMED = 5  # files that are named of many
TEXTS = {"field", "file", "types", "such as", "reason"}  # columns of text; the others are numbers


def prepared_tables(log: PreparedLog) -> Iterator[RenderableType]:
    """A table per block: rows, time span, label rates; of each field the known ids and the missing share."""
    for block in log.blocks.values():
        span = _span(block.min_ts, block.max_ts)
        yield Text(f"block {block.name}: {block.rows:,} rows, {span}", style="bold")
        yield _labels(label_rates(block, log.tasks))
        yield _fields(log, block)
        yield Text()
    yield from _warnings(log)


def preview_tables(preview: Preview) -> Iterator[RenderableType]:
    """The understanding of the first rows: files, types, times, fields, labels, problems."""
    yield Text(f"the first rows of {len(preview.files):,} files: {preview.rows:,} rows", style="bold")
    yield _files(preview)
    yield Text()
    if preview.span:
        yield Text(f"times: {_span(*preview.span)}")
        yield _labels(preview.label_rates)
        yield _preview_fields(preview)
        yield Text()
    if preview.outside:
        yield Text(f"{preview.outside:,} of these rows lie outside of every block", style="yellow")
    yield from _quarantined(preview.quarantined)
    yield from (Text(f"problem: {problem}", style="red") for problem in preview.problems)


def unread(names: list[str]) -> Text:
    """Files beside the log that are not read."""
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    return Text(f"not read: {shown}", style="yellow")


def _labels(rates: dict[str, float]) -> Text:
    return Text("label rates: " + ", ".join(f"{task} {rate:.4f}" for task, rate in rates.items()))


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


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        # The last column takes what is left of the line.
        width = TEXT_WIDTH if heading in TEXTS and heading != headings[-1] else None
        justify: Literal["left", "right"] = "left" if heading in TEXTS else "right"
        table.add_column(heading, justify=justify, no_wrap=width is not None, max_width=width)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _warnings(log: PreparedLog) -> Iterator[RenderableType]:
    rates = {block.name: label_rates(block, log.tasks) for block in log.blocks.values()}
    for task, value in product(log.tasks, (0, 1)):
        if blocks := [name for name, of_block in rates.items() if of_block[task] == value]:
            where = f"label {task} is {value} in every row of block {', '.join(blocks)}"
            yield Text(f"{where}: check its column and condition in the schema", style="yellow")
    if outside := log.left_out["outside of every block"]:
        yield Text(f"{outside:,} rows lie outside of every block and are left out", style="yellow")
    yield from (Text(f"{count:,} {note}", style="yellow") for note, count in log.notes.items())
    yield from _quarantined(Counter(log.quarantined_by_reason))


def _quarantined(reasons: Counter[str]) -> Iterator[RenderableType]:
    if reasons:
        yield Text(f"{reasons.total():,} rows quarantined, by reason:", style="yellow")
        yield _table(("rows", "reason"), [(f"{n:,}", why) for why, n in reasons.most_common()])
        yield Text()


def _files(preview: Preview) -> Table:
    cells = []
    for file in preview.files:
        count = "-" if file.rows is None else f"{file.rows.num_rows:,}"
        cells.append((file.name, count, ", ".join(f"{k} {v}" for k, v in file.types.items())))
    return _table(("file", "rows", "types"), cells)


def _preview_fields(preview: Preview) -> Table:
    cells = [
        (name, f"{field.distinct:,}", f"{field.missing:.2%}", ", ".join(field.samples))
        for name, field in preview.fields.items()
    ]
    return _table(("field", "ids", "missing", "such as"), cells)


def _span(start: int, end: int) -> str:
    first, last = (str(np.datetime64(ms // 1000, "s")).replace("T", " ") for ms in (start, end))
    return f"{first} to {last} UTC"

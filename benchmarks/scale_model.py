"""How long a stage takes, what it costs and what stops it, from measured constants.

    $ python -m benchmarks.scale_model --write docs/scale.md
    $ python -m benchmarks.scale_model --gpu-hour 3 --bandwidth 3e9

The first writes the tables between the marks of the page, the second prints them for other prices and a
faster storage. Every constant says where it was measured; what nobody measured is in `Assumed`.

A stage is one block of `rows` rows; all `ids` of all fields are in the tables, and all are met in the block,
which from 1e8 rows on is nearly so and otherwise an upper bound.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

ROWS, IDS, GPUS = (10**8, 10**9, 10**10), (10**7, 10**8, 10**9), (1, 8, 64)
BEGIN, END = "<!-- begin: python -m benchmarks.scale_model --write docs/scale.md -->", "<!-- end -->"
HOUR = 3600.0


class Constant(NamedTuple):
    """A measured number and where it comes from."""

    value: float
    unit: str
    source: str


FIELDS, DIM, TASKS = 12, 32, 3  # Globo with the default settings, as all that is measured below
RATIO = 0.015

STEP = Constant(
    0.041, "s", "a step of the reference, four models, 1,024 rows: one H100, results.md, On a GPU"
)
SCORE = Constant(583_268 / 0.83, "rows/s", "scoring, four models, reading included: one H200, performance.md")
ALIGN = Constant(583_268 / 2.7, "rows/s", "alignment with all proxies: one H200, performance.md")
READ = Constant(583_268 / 0.12, "rows/s", "reading a block in one process: H200 machine, performance.md")
DISTILL = Constant(32, "s", "distilling, whatever the rows: one H100 with other work, results.md (28 to 38)")
DRIVER = Constant(668, "MB", "peak of the driver, 50 million rows in 64 parts: performance.md")
PREPARE = Constant(58 / 20, "CPU s per million rows", "prepare, 17 fields: two cores, performance.md")
CONSTANTS = (STEP, SCORE, ALIGN, READ, DISTILL, DRIVER, PREPARE)
BATCH = 1024
NEARLY = 1.02
MEMORY = "memory does not fit"

# Bytes; the formulas are those of operations.md and architecture.md.
ID_BYTES = 12 * DIM + 1  # an id of the reference: its row, two moments, a share of the dense part
SCORED_ID_BYTES = 4 * DIM
ROW_BYTES = 4 * FIELDS + TASKS
MEMORY_BYTES = 4 * FIELDS * DIM + 4 * TASKS + 16
CANDIDATE_BYTES = 16
PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Assumed:
    """What nobody has measured here."""

    gpu_hour: float = 5.0
    """Dollars for a GPU and its share of a machine for an hour."""
    gpu_bytes: float = 141e9
    """Memory of a GPU (H200)."""
    bandwidth: float = 1e9
    """Bytes a second between a process and storage."""
    write: Path | None = None
    """Page whose tables are replaced."""


class Split(NamedTuple):
    """How GPUs are shared: workers of the reference, scorers; the distiller has one where there are three."""

    workers: int
    scorers: int


class Stage(NamedTuple):
    """Seconds of the parts of a stage, and what does not fit."""

    split: Split
    train: float
    checkpoint: float
    score: float
    distill: float
    obstacle: str

    def seconds(self, gpus: int) -> float:
        """The next block is trained while this one is scored and distilled; on one GPU they share it."""
        parts = (self.train + self.checkpoint, self.score + self.distill)
        return sum(parts) if gpus == 1 else max(parts)

    def bottleneck(self) -> str:
        if self.obstacle:
            return self.obstacle
        parts = {
            "steps of training": self.train,
            "writing the checkpoint": self.checkpoint,
            "scoring and alignment": self.score,
            "distilling": self.distill,
        }
        return max(parts, key=lambda name: parts[name])


def stage(rows: int, ids: int, gpus: int, assumed: Assumed, grows: bool) -> Stage:
    """The split of the GPUs with the fewest workers of the reference that is nearly as quick as any.

    Args:
        grows: whether a batch has 1,024 rows for each worker of the reference, and not for all together.
    """
    stages = [_stage(rows, ids, gpus, split, assumed, grows) for split in _splits(gpus)]
    fitting = [each for each in stages if not each.obstacle]
    # No split helps against a memory that does not fit; tables may still be divided among workers.
    fitting = fitting or [each for each in stages if each.obstacle == MEMORY] or stages
    quickest = min(each.seconds(gpus) for each in fitting)
    return next(each for each in fitting if each.seconds(gpus) <= NEARLY * quickest)


def _splits(gpus: int) -> Iterator[Split]:
    if gpus < 3:
        yield Split(1, 1)
        return
    yield from (Split(workers, gpus - 1 - workers) for workers in range(1, gpus - 1))


def _stage(rows: int, ids: int, gpus: int, split: Split, assumed: Assumed, grows: bool) -> Stage:
    batch = BATCH * (split.workers if grows else 1)
    # Every worker reads the whole block and keeps its part of each batch (actors/reference/group.py).
    reading = max(rows / READ.value, rows * ROW_BYTES / assumed.bandwidth)
    train = max(rows / batch * STEP.value, reading)
    checkpoint = ids * ID_BYTES / assumed.bandwidth / split.workers
    read_part = rows * ROW_BYTES / assumed.bandwidth / split.scorers
    tables = ids * SCORED_ID_BYTES / assumed.bandwidth
    score = rows / split.scorers * (1 / SCORE.value + 1 / ALIGN.value) + 2 * read_part + tables
    new_rows = RATIO * rows
    distill = DISTILL.value + new_rows * MEMORY_BYTES / assumed.bandwidth
    return Stage(split, train, checkpoint, score, distill, _obstacle(rows, ids, gpus, split, assumed))


def _obstacle(rows: int, ids: int, gpus: int, split: Split, assumed: Assumed) -> str:
    """What does not fit a GPU, the first of it; empty where all does. One GPU has all roles."""
    tables, scored = ids * ID_BYTES / split.workers, ids * SCORED_ID_BYTES
    memory = RATIO * rows * MEMORY_BYTES
    if tables + (scored + memory if gpus == 1 else 0) > assumed.gpu_bytes:
        return "tables do not fit" if gpus > 1 or tables > memory else MEMORY
    if scored > assumed.gpu_bytes:
        return "rows of a scorer do not fit"
    return MEMORY if memory > assumed.gpu_bytes else ""


def tables(assumed: Assumed) -> str:
    """The tables of the page, in Markdown."""
    held = [
        "| ids | reference, in all | each scorer, at most | a full checkpoint | written at the bandwidth |",
        "|---|---|---|---|---|",
        *(
            f"| {ids:.0e} | {_bytes(ids * ID_BYTES)} | {_bytes(ids * SCORED_ID_BYTES)} "
            f"| {_bytes(ids * ID_BYTES)} | {_time(ids * ID_BYTES / assumed.bandwidth)} |"
            for ids in IDS
        ),
    ]
    moved = [
        "| rows of the block | the block, uncompressed | read in a stage | parts | memory, 1.5 % of the rows "
        "| candidates at the scorer that chooses | `prepare`, CPU hours |",
        "|---|---|---|---|---|---|---|",
        *(_moved(rows) for rows in ROWS),
    ]
    pages = ["**Held: tables**", *held, "**Moved: rows**", *moved]
    for grows, title in (
        (False, "**1,024 rows a batch, as measured**"),
        (True, "**1,024 rows a batch for each worker of the reference** (another run: steps are larger)"),
    ):
        pages += [title, *_times(assumed, grows)]
    return "\n\n".join(_joined(pages))


def _joined(lines: list[str]) -> Iterator[str]:
    """Paragraphs; the lines of a table stay together."""
    table: list[str] = []
    for line in lines:
        if line.startswith("|"):
            table.append(line)
            continue
        if table:
            yield "\n".join(table)
        table = []
        yield line
    yield "\n".join(table)


def _moved(rows: int) -> str:
    selected = RATIO * rows
    parts = max(64, -(-rows // (PART_BYTES // (ROW_BYTES + 8))))
    hours = rows / 1e6 * PREPARE.value / HOUR
    cells = (
        f"{rows:.0e}",
        _bytes(rows * ROW_BYTES),
        f"{_bytes(3 * rows * ROW_BYTES)} and the parts of chosen rows",
        f"{parts:,}",
        _bytes(selected * MEMORY_BYTES),
        _bytes(2 * selected * CANDIDATE_BYTES),
        f"{hours:.2g}",
    )
    return f"| {' | '.join(cells)} |"


def _times(assumed: Assumed, grows: bool) -> Iterator[str]:
    yield "| rows | ids | " + " | ".join(f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS) + " |"
    yield "|---|---|" + "---|" * len(GPUS)
    for rows in ROWS:
        for ids in IDS:
            cells = (_cell(stage(rows, ids, gpus, assumed, grows), gpus, assumed) for gpus in GPUS)
            yield f"| {rows:.0e} | {ids:.0e} | " + " | ".join(cells) + " |"


def _cell(made: Stage, gpus: int, assumed: Assumed) -> str:
    seconds = made.seconds(gpus)
    dollars = seconds / HOUR * gpus * assumed.gpu_hour
    if made.obstacle:
        return f"no: {made.obstacle} (would be {_time(seconds)}, ${dollars:,.0f})"
    split = f", {made.split.workers} + {made.split.scorers}" if gpus > 1 else ""
    return f"{_time(seconds)}, ${dollars:,.0f}{split}: {made.bottleneck()}"


def _time(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (HOUR, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _bytes(count: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def page(text: str, assumed: Assumed) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(assumed)}\n\n{END}{after}"


def main(assumed: Assumed) -> None:
    if assumed.write is None:
        print(tables(assumed))
        return
    assumed.write.write_text(page(assumed.write.read_text(encoding="utf-8"), assumed), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Assumed))

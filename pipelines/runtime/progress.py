"""Progress of a command: one line on a terminal that changes in place, elsewhere a line every half minute."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

LINE_SECONDS = 30.0  # from one line to the next where there is no terminal
TOO_EARLY = 0.02  # share of the work below which the time left is not told

console = Console(stderr=True, highlight=False, soft_wrap=True)


class Whole(NamedTuple):
    """The stages of a run that are missing."""

    stages: int | None  # of the run when it is complete; None where there is no end
    done: int  # stages that were committed before
    block_rows: tuple[int, ...] = ()  # of the blocks of the missing stages; empty where there is no end


class Bars:
    """What is running, and how far it is.

    Args:
        whole: the run that the work belongs to; None where there is none.
        clock: seconds.
    """

    def __init__(self, whole: Whole | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.whole, self.clock, self.started = whole, clock, clock()
        self.running: list[Bar] = []
        self.followed: dict[str, Bar] = {}
        self.trained = 0.0  # rows
        self.committed_rows: list[int] = []

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator["Bar"]:
        bar = Bar(self, label, total, unit)
        self.running.append(bar)
        try:
            yield bar
        finally:
            self.running.remove(bar)

    def follow(self, label: str, done: int, total: int) -> None:
        """Show `done` of `total` files under a label; the bar goes when all are done."""
        if label not in self.followed:
            self.followed[label] = Bar(self, label, total, "files")
            self.running.append(self.followed[label])
        self.followed[label].done = done
        if done == total:
            self.running.remove(self.followed.pop(label))

    def committed(self, rows: int) -> None:
        """A stage of the run was committed; `rows` of its block."""
        self.committed_rows.append(rows)

    def line(self) -> str:
        """What is running, in a line; empty where nothing is, as where a stream waits for rows."""
        running = list(self.running)
        if self.whole is None:
            return "; ".join(bar.text() for bar in running)
        if not running and self.whole.stages is None:
            return ""
        return "; ".join([self._whole_text(self.whole), *(bar.share_text() for bar in running)])

    def _whole_text(self, whole: Whole) -> str:
        stage = f"stage {whole.done + len(self.committed_rows) + 1}"
        done, total = self._rows(whole), sum(whole.block_rows)
        seconds = self.clock() - self.started
        if whole.stages is None:
            return ", ".join(filter(None, [stage, rate_text(done, seconds, "rows")]))
        texts = [f"{stage}/{whole.stages}", rate_text(done, seconds, "rows"), left_text(done, total, seconds)]
        return ", ".join(filter(None, texts))

    def _rows(self, whole: Whole) -> float:
        """Rows done since the start: half of a row's work is to learn it, half to distill it.

        A reference that is reused learns nothing: its blocks count as learned when they are distilled.
        """
        distilled = float(sum(self.committed_rows))
        number = len(self.committed_rows)
        if number < len(whole.block_rows):
            shares = [bar.share for bar in list(self.running) if bar.unit == "iterations"]
            distilled += sum(shares) * whole.block_rows[number]
        return (max(self.trained, distilled) + distilled) / 2


class Bar:
    """A piece of work that is running."""

    def __init__(self, bars: Bars, label: str, total: int, unit: str) -> None:
        self.bars, self.label, self.total, self.unit = bars, label, total, unit
        self.done, self.started = 0, bars.clock()

    def advance(self, amount: int) -> None:
        self.done += amount
        if self.unit == "rows":
            self.bars.trained += amount

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 1.0

    def share_text(self) -> str:
        return f"{self.label} {self.share:.0%}"

    def text(self) -> str:
        """The label, how much of it is done, how fast it goes, and how long it takes."""
        seconds = self.bars.clock() - self.started
        done = f"{self.label} {self.done:,}/{self.total:,}"
        rate = rate_text(self.done, seconds, self.unit)
        return ", ".join(filter(None, [done, rate, left_text(self.done, self.total, seconds)]))


def rate_text(done: float, seconds: float, unit: str) -> str:
    """How fast something goes, per minute where it is slower than one a second; empty before it begins."""
    if not done or seconds <= 0:
        return ""
    rate = done / seconds
    if rate < 1:
        return f"{rate * 60:.1f} {unit}/min"
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"


def left_text(done: float, total: float, seconds: float) -> str:
    """The time left at the rate so far; empty where it is too early to tell."""
    if seconds <= 0 or not total or done / total < TOO_EARLY or done >= total:
        return ""
    return f"{duration_text(seconds * (total - done) / done)} left"


def duration_text(seconds: float) -> str:
    """Seconds below 90, minutes below 90, else hours and minutes."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def bars(whole: Whole | None = None) -> Iterator[Bars]:
    """Show the progress of what runs inside."""
    shown = Bars(whole)
    with _in_place(shown) if console.is_terminal else _in_lines(shown):
        yield shown


@contextmanager
def _in_place(shown: Bars) -> Iterator[None]:
    def line() -> Text:
        return Text(shown.line(), no_wrap=True, overflow="ellipsis")

    # Rich would print on the terminal what goes to standard output, which may be a file.
    to_terminal = sys.stdout.isatty()
    with Live(get_renderable=line, console=console, transient=True, redirect_stdout=to_terminal):
        yield


@contextmanager
def _in_lines(shown: Bars) -> Iterator[None]:
    over = threading.Event()

    def print_lines() -> None:
        while not over.wait(LINE_SECONDS):
            if line := shown.line():
                console.print(line, markup=False)

    thread = threading.Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

"""Progress on a terminal: a bar per running task with rate and time left; nothing where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True, highlight=False, soft_wrap=True)


class RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")


class Bars:
    """Named bars; silent unless standard error is a terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.followed: dict[str, TaskID] = {}

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator["Bar"]:
        task = self.progress.add_task(label, total=total, unit=unit)
        try:
            yield Bar(self.progress, task)
        finally:
            self.progress.remove_task(task)

    def follow(self, label: str, done: int, total: int) -> None:
        """Show `done` of `total` files under a label; the bar goes when all are done."""
        if label not in self.followed:
            self.followed[label] = self.progress.add_task(label, total=total, unit="files")
        self.progress.update(self.followed[label], completed=done)
        if done == total:
            self.progress.remove_task(self.followed.pop(label))


class Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def advance(self, amount: int) -> None:
        self.progress.advance(self.task, amount)


@contextmanager
def bars() -> Iterator[Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}/{task.total:,}"))
    with Progress(
        *columns, RateColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as shown:
        yield Bars(shown)

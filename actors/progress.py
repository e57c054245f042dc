"""Progress of long work inside an actor, streamed to the driver while it runs."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

REPORT_EVERY = 50_000  # units of progress that are reported together at most


class Event(NamedTuple):
    """Progress since the last event, or the result."""

    kind: str  # "progress" or "done"
    value: Any


def with_progress(work: Callable[[Callable[[int], None]], Any]) -> Iterator[Event]:
    """Run `work(report)` in a thread; yield progress as it reports, and at last its result.

    What `work` raises is raised here.
    """
    events: queue.Queue[Event] = queue.Queue()

    def run() -> None:
        try:
            events.put(Event("done", work(lambda amount: events.put(Event("progress", amount)))))
        except BaseException as failure:
            events.put(Event("failed", failure))

    threading.Thread(target=run, daemon=True).start()
    pending = 0
    while True:
        event = events.get()
        if event.kind == "failed":
            raise event.value
        if event.kind == "done":
            yield event
            return
        pending += event.value
        if events.empty() or pending >= REPORT_EVERY:
            yield Event("progress", pending)
            pending = 0

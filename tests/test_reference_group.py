"""The reference on workers of Ray Train: what passes between driver and workers, and what a loss does."""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.distributed as dist

from actors.placement import Claim, ResourceConfig
from actors.progress import Event
from actors.reference.group import GroupSetting, Order, ReferenceGroup, work
from diet_ray.errors import DataError, ResourceError
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.run import Run
from diet_ray.runs.state import RunState
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.manifest import Manifest
from pipelines.distill import distill
from tests.distinct_blocks import SMALL, write_distinct_blocks
from tests.tiny_run import TINY


class Desk(ReferenceGroup):
    """Without Ray and without workers."""

    def __init__(self) -> None:
        self.order, self.ended = Order(0, "", 0), None
        self.answers = queue.Queue()


def worker(desk: Desk, *events: Event) -> threading.Thread:
    """A worker that answers the next order with `events`."""

    def work(after: int = desk.order.number) -> None:
        while (order := desk.next_order(after)) is None:
            time.sleep(0.01)
        desk.answer(order.number - 1, Event("done", "of an order that was given up"))
        for event in events:
            desk.answer(order.number, event)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_an_order_is_carried_out_once_and_answered_in_order() -> None:
    desk = Desk()
    assert desk.next_order(0) is None
    first = worker(desk, Event("progress", 7), Event("progress", 3), Event("done", ("files", 0.5)))
    events = list(desk.train(4))
    first.join()
    assert events == [Event("progress", 7), Event("progress", 3), Event("done", ("files", 0.5))]
    assert desk.next_order(0) == Order(1, "train", 4) and desk.next_order(1) is None
    second = worker(desk, Event("done", "scores"))
    assert desk.progressive(5) == "scores"
    second.join()
    assert desk.next_order(1) == Order(2, "progressive", 5)


def test_an_error_of_a_worker_is_raised_as_it_was() -> None:
    desk = Desk()
    thread = worker(desk, Event("progress", 7), Event("failed", DataError("training loss is nan")))
    with pytest.raises(DataError, match="training loss is nan"):
        list(desk.train(1))
    thread.join()


def test_workers_that_are_lost_for_good_end_the_call() -> None:
    desk = Desk()
    desk.ended = ResourceError("lost too often")
    with pytest.raises(ResourceError, match="lost too often"):
        list(desk.train(1))


class FakeCall:
    """A remote method that runs here."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class Orders:
    """A desk with a list of orders; after the last one it is gone, as when the run ends."""

    def __init__(self, *orders: Order) -> None:
        self.orders, self.answers = list(orders), list[tuple[int, Event]]()
        self.next_order, self.answer = FakeCall(self._next), FakeCall(self._answer)

    def _next(self, after: int) -> Order | None:
        if after == len(self.orders):
            raise ConnectionError("the actor is gone")
        return self.orders[after]

    def _answer(self, number: int, event: Event) -> None:
        self.answers.append((number, event))


def test_a_worker_carries_out_orders_as_the_one_reference_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after an order that failed, and one whose checkpoint others wrote."""
    log = write_distinct_blocks(tmp_path / "log")
    monkeypatch.setattr("actors.reference.group.ray.get", lambda value: value)
    monkeypatch.setattr("actors.reference.group.REPORT_EVERY", 100)
    place = (str(tmp_path / "log"), str(tmp_path / "run"), SMALL.model_dump(mode="json"))
    desk = Orders(
        Order(1, "train", 2),  # there is no checkpoint of stage 1 yet
        Order(2, "train", 1),
        Order(3, "progressive", 2),
        Order(4, "train", 2),
    )
    dist.init_process_group("gloo", f"file://{tmp_path}/group", timedelta(seconds=60), 1, 0)
    try:
        setting = GroupSetting(1, Claim(0, 0), threads=1, full_every=1)
        with pytest.raises(ConnectionError):
            work({"place": place, "setting": setting, "desk": desk})
    finally:
        dist.destroy_process_group()
    own = ReferenceTrainer(RunState(log, Folder.at(str(tmp_path / "own")), SMALL), full_every=1)
    first, scores, second = own.train(1), own.progressive(2), own.train(2)
    ended = {number: event for number, event in desk.answers if event.kind != "progress"}
    assert ended[1].kind == "failed" and "reference/0001" in str(ended[1].value)
    assert [ended[number].value for number in (2, 3, 4)] == [first, scores, second]
    for order, rows in ((2, 160), (4, 140)):
        events = [e.value for number, e in desk.answers if number == order and e.kind == "progress"]
        assert sum(events) == rows and len(events) == 2
    (*_, manifest) = (Manifest.read(Folder.at(str(tmp_path / "run")), stage) for stage in (1, 2))
    assert manifest and manifest.increments == 0


def memories(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("memory/*/memory.parquet"))}


def workers_of_train() -> list[psutil.Process]:
    """Processes of this test's Ray that learn the reference."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "RayTrainWorker" in " ".join(process.cmdline())]


@pytest.fixture
def killer() -> Iterator[Any]:
    """Kills one of two workers as soon as a stage's memory of before is there."""
    over = threading.Event()
    killed: list[int] = []

    def kill(run: Path) -> None:
        while not over.wait(0.05):
            found = workers_of_train()
            if (run / "stages/0001.json").exists() and len(found) == 2:
                os.kill(found[0].pid, signal.SIGKILL)
                killed.append(found[0].pid)
                return

    threads: list[threading.Thread] = []

    def start(run: Path) -> list[int]:
        threads.append(threading.Thread(target=kill, args=(run,)))
        threads[0].start()
        return killed

    yield start
    over.set()
    for thread in threads:
        thread.join()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_worker_that_is_lost_changes_nothing(
    ray_here: None, drift_log: str, tmp_path: Path, killer: Any
) -> None:
    """Bit for bit on the same number of workers; to rounding what one worker learns, and resumed by one."""
    two = ResourceConfig(reference_workers=2, threads=1, scorers=1)
    whole, disturbed, alone = tmp_path / "whole", tmp_path / "disturbed", tmp_path / "alone"
    distill(drift_log, str(whole), TINY, two)
    killed = killer(disturbed)
    distill(drift_log, str(disturbed), TINY, two)
    assert killed and memories(disturbed) == memories(whole) and len(memories(whole)) == 3
    distill(drift_log, str(alone), TINY, ResourceConfig(threads=1, scorers=1))
    runs = [Run.read(str(run)) for run in (whole, alone)]
    losses = [[record.metrics.training_loss for record in run.records] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    for run in (whole, disturbed):
        # A cluster of another size resumes it.
        (run / "stages/0003.json").unlink()
        distill(drift_log, str(run), TINY, ResourceConfig(threads=1, scorers=1))
    assert memories(whole) == memories(disturbed)

"""The reference on workers of Ray Train: what passes between driver and workers, and what a loss does."""

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.distributed as dist
from ray.train import ControllerError, WorkerGroupError

from actors.placement import ResourceConfig
from actors.progress import Event
from actors.reference.group import NOTHING, GroupSetting, Order, ReferenceGroup, work
from diet_ray import layout
from diet_ray.config import TrainingConfig
from diet_ray.errors import DataError, ResourceError
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.run import Run
from diet_ray.runs.state import RunState
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.manifest import Manifest
from pipelines.distill import distill
from tests.distinct_blocks import SMALL, write_distinct_blocks
from tests.small_cluster import title
from tests.tiny_run import TINY


class Desk(ReferenceGroup):
    """Without Ray and without workers."""

    def __init__(self) -> None:
        self._open()
        self.fitting = threading.Thread(target=self._ended, daemon=True)
        self.fitting.start()

    def _ended(self) -> None:
        """A worker that does nothing but end."""
        while self.order.kind != "end":
            time.sleep(0.01)


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
    assert desk.next_order(0) is None  # a worker that starts anew does not carry it out again
    second = worker(desk, Event("done", "scores"))
    assert desk.progressive(5) == "scores"
    second.join()
    desk.end()
    assert desk.next_order(0) == desk.next_order(2) == Order(3, "end", 0) and not desk.fitting.is_alive()


def test_an_error_of_a_worker_is_raised_as_it_was() -> None:
    desk = Desk()
    thread = worker(desk, Event("progress", 7), Event("failed", DataError("training loss is nan")))
    with pytest.raises(DataError, match="training loss is nan"):
        list(desk.train(1))
    thread.join()


def test_an_order_stays_open_until_it_is_carried_out() -> None:
    """Workers that start anew find it."""
    desk = Desk()
    desk.order = Order(1, "train", 4)
    desk.answer(1, Event("progress", 7))
    assert desk.next_order(0) == Order(1, "train", 4) and desk.next_order(1) is None
    desk.answer(1, Event("done", ("files", 0.5)))
    assert desk.next_order(0) is None
    desk.end()


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
    """A desk with a list of orders."""

    def __init__(self, *orders: Order) -> None:
        self.orders, self.answers = list(orders), list[tuple[int, Event]]()
        self.next_order, self.answer = FakeCall(self._next), FakeCall(self._answer)

    def _next(self, after: int) -> Order | None:
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
        Order(5, "end", 0),
    )
    dist.init_process_group("gloo", f"file://{tmp_path}/group", timedelta(seconds=60), 1, 0)
    try:
        setting = GroupSetting(1, {}, threads=1, full_every=1)
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


class FakeTrainer:
    """Ray Train as far as a group asks for it; `fit` raises what it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
        self.failure, self.seen = failure, list[Any]()
        monkeypatch.setattr("actors.reference.group.TorchTrainer", self._new)
        monkeypatch.setattr("actors.reference.group.remove_placement_group", self.seen.append)

    def _new(self, loop: Any, **options: Any) -> "FakeTrainer":
        self.options = options
        return self

    def fit(self) -> None:
        self.seen.append("fit")
        raise self.failure


@pytest.mark.parametrize(
    ("bundle", "taken"),
    [({}, NOTHING), ({"CPU": 1.0}, {"CPU": 1}), ({"GPU": 1.0, "spot": 0.001}, {"GPU": 1, "spot": 0.001})],
)
def test_workers_take_what_was_held_for_them_and_are_refused_where_there_is_no_place(
    bundle: dict[str, float], taken: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train by itself would try forever; a share of a CPU, however small, would keep tasks from it."""
    fake = FakeTrainer(monkeypatch, ControllerError(TimeoutError("no place")))
    desk = Desk()
    desk.place, desk.desk = ("", str(tmp_path), {}), None
    desk.setting = GroupSetting(2, bundle, threads=1, start_s=30)
    held: Any = "held"
    desk._fit(held)
    assert fake.seen == ["held", "fit"]
    scaling, run = fake.options["scaling_config"], fake.options["run_config"]
    assert (scaling.num_workers, scaling.resources_per_worker) == (2, taken)
    assert 0 <= run.failure_config.controller_failure_limit < 5
    assert fake.options["torch_config"].timeout_s <= 900
    refused = r"2 workers .* could not be started 3 times within 30 s.*fewer resources\.reference_workers"
    with pytest.raises(ResourceError, match=refused):
        list(desk.train(1))


def test_a_group_that_was_lost_too_often_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTrainer(monkeypatch, WorkerGroupError("rank 1 died", {1: OSError("gone")}))
    desk = Desk()
    desk.place, desk.desk = ("", str(tmp_path), {}), None
    desk.setting = GroupSetting(2, {}, threads=1)
    desk._fit(None)
    with pytest.raises(ResourceError, match="workers of the reference were lost too often: rank 1 died"):
        list(desk.train(1))


def test_a_group_that_cannot_begin_says_why() -> None:
    """And does not let the driver wait."""
    desk = Desk()
    desk.place, desk.desk = ("", "nowhere://run", {}), None
    desk.setting = GroupSetting(2, {}, threads=1)
    desk._fit(None)
    with pytest.raises(ResourceError, match=r"Ray Train could not run the workers .*nowhere"):
        list(desk.train(1))


def memories(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("memory/*/memory.parquet"))}


def workers_of_train() -> list[psutil.Process]:
    """Processes of this test's Ray that learn the reference."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if title(process).startswith("ray::RayTrainWorker")]


class Killer(threading.Thread):
    """Kills one of two workers in the middle of the second block of a run.

    That is once the worker has worked for WORK_S after the first block's checkpoint, and before the second
    block's; `killed` says whether that was so.
    """

    WORK_S = 0.3  # of CPU; a block takes several times as much

    def __init__(self, run: Path) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.killed = run, False

    def run(self) -> None:
        while not (self.run_folder / "reference/0001/checkpoint.json").exists():
            time.sleep(0.005)
        victim = workers_of_train()[-1]
        start = victim.cpu_times().user
        while victim.cpu_times().user < start + self.WORK_S:
            time.sleep(0.005)
        if not (self.run_folder / "reference/0002").exists():
            os.kill(victim.pid, signal.SIGKILL)
            self.killed = not (self.run_folder / "reference/0002").exists()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_worker_that_is_lost_changes_nothing(ray_here: None, drift_log: str, tmp_path: Path) -> None:
    """Bit for bit on two workers again; to rounding where one resumes the run, as on a smaller cluster."""
    two = ResourceConfig(reference_workers=2, threads=1, scorers=1, num_cpus=0.25)
    slow = TINY.model_copy(update={"training": TrainingConfig(batch_size=8)})
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    distill(drift_log, str(whole), slow, two)
    killer = Killer(disturbed)
    killer.start()
    distill(drift_log, str(disturbed), slow, two)
    assert killer.killed
    assert memories(disturbed) == memories(whole) and len(memories(whole)) == 3
    for path in (layout.record(3), layout.trained(3)):
        (disturbed / path).unlink()
    distill(drift_log, str(disturbed), slow, ResourceConfig(threads=1, scorers=1))
    runs = [Run.read(str(run)) for run in (whole, disturbed)]
    losses = [[record.metrics.training_loss for record in run.records] for run in runs]
    assert losses[0][:2] == losses[1][:2] and losses[0][2] == pytest.approx(losses[1][2], abs=1e-3)
    writers = {path.name.split("-")[1] for path in (disturbed / "reference/0003").glob("rows-*")}
    assert writers == {"0"}

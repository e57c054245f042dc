"""The reference on several workers of Ray Train, behind the interface of ReferenceModel.

One `fit` lasts for the whole run: its start takes a quarter of a minute. The workers wait for orders of the
driver, which this actor hands on, and each answers an order with all others: they take their parts of every
batch, and write their parts of the checkpoint. Rows come from the block's files, of which each worker reads
all and keeps its part of each batch: shards of `streaming_split` are dealt out as they are asked for, so that
a batch would not be the rows that one worker learns together.
"""

import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow.fs
import ray
import torch
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup, remove_placement_group

from actors.progress import REPORT_EVERY, Event
from actors.worker import RunWorker
from diet_ray import config as diet_config
from diet_ray import layout
from diet_ray.errors import DietError, ResourceError
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.state import RunState
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.manifest import FullEvery
from diet_ray.training.metrics import Scores
from diet_ray.training.parallel.peers import Peers

POLL_S = 0.1
COLLECTIVE_S = 600  # a process that its peers wait for longer is lost; torch would wait half an hour
# Of workers, for each of which all start again from the last checkpoint; as many as actors may be restarted.
MOST_FAILURES = 50
MOST_STARTS = 3  # that fail because there is no place; Ray Train by itself would try forever
END_S = 60  # for the workers to end
# Of a worker without a claim, because Ray Train needs one: a byte of memory is always there, and a share of a
# CPU would keep a task from the last one.
NOTHING = {"memory": 1.0}


class GroupSetting(NamedTuple):
    """What the workers of a reference take."""

    workers: int
    bundle: dict[str, float]  # that each claims
    threads: int
    full_every: FullEvery = "auto"
    start_s: float = 60.0  # to wait for a place for all workers, an autoscaler's nodes included


class Order(NamedTuple):
    """What all workers do next."""

    number: int
    kind: str  # "train", "progressive" or "end"
    stage: int


class ReferenceGroup(RunWorker):
    """Hands orders of the driver to the workers, and their answers back; its calls may be repeated."""

    def __init__(
        self,
        data: str,
        run: str,
        config: dict[str, Any],
        setting: GroupSetting,
        held: PlacementGroup | None,
    ) -> None:
        """held: keeps the places of the workers until Ray Train takes them."""
        super().__init__(data, run, config, setting.threads)
        self.place, self.setting = (data, run, config), setting
        self._open()
        self.desk = ray.get_runtime_context().current_actor
        self.fitting = threading.Thread(target=self._fit, args=(held,), daemon=True)
        self.fitting.start()

    def _open(self) -> None:
        """There is no order yet."""
        self.order, self.carried_out = Order(0, "", 0), 0
        self.answers: queue.Queue[tuple[int, Event]] = queue.Queue()
        self.ended: BaseException | None = None

    def progressive(self, stage: int) -> Scores:
        """Scores on the block of `stage` before it is learned."""
        (*_, done) = self._carried_out("progressive", stage)
        scores: Scores = done.value
        return scores

    def train(self, stage: int) -> Iterator[Event]:
        """Learn the block of `stage`; yields progress in rows, then the checkpoint's stamps and the loss."""
        yield from self._carried_out("train", stage)

    def end(self) -> None:
        """End the workers, and give back what they claimed."""
        self.order = Order(self.order.number + 1, "end", 0)
        self.fitting.join(END_S)

    def next_order(self, after: int) -> Order | None:
        """The open order, for a worker that has carried out order `after`; None where it has to wait.

        An order that was carried out is closed: workers that start anew would write its checkpoint a second
        time, while others read it.
        """
        return self.order if self.order.number > max(after, self.carried_out) else None

    def answer(self, number: int, event: Event) -> None:
        """What a worker says of an order."""
        if event.kind != "progress":
            self.carried_out = max(self.carried_out, number)
        self.answers.put((number, event))

    def _carried_out(self, kind: str, stage: int) -> Iterator[Event]:
        number = self.order.number + 1
        self.order = Order(number, kind, stage)
        while True:
            try:
                answered, event = self.answers.get(timeout=1)
            except queue.Empty:
                if self.ended:
                    raise self.ended from None
                continue
            if answered != number:
                continue  # of a call that was given up
            if event.kind == "failed":
                raise event.value
            yield event
            if event.kind == "done":
                return

    def _fit(self, held: PlacementGroup | None) -> None:
        try:
            trainer = self._trainer()
            if held:
                remove_placement_group(held)
            trainer.fit()
            self.ended = ResourceError("the workers of the reference ended before the run")
        except BaseException as failed:
            self.ended = _lost(failed, self.setting)

    def _trainer(self) -> TorchTrainer:
        setting, (data, run, config) = self.setting, self.place
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # a user's models are found in the working directory
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(setting.start_s)
        folder = Folder.at(run)
        return TorchTrainer(
            work,
            train_loop_config={"place": (data, run, config), "setting": setting, "desk": self.desk},
            scaling_config=ScalingConfig(
                num_workers=setting.workers,
                use_gpu=setting.bundle.get("GPU", 0) > 0,
                resources_per_worker=setting.bundle or NOTHING,
            ),
            run_config=RunConfig(
                name="reference",
                storage_path=f"{folder.root}/{layout.RAY_TRAIN}",
                storage_filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(folder.fs)),
                # What type checkers see is the class of Ray Train's first version.
                failure_config=FailureConfig(  # type: ignore[call-arg]
                    max_failures=MOST_FAILURES, controller_failure_limit=MOST_STARTS - 1
                ),
            ),
            torch_config=TorchConfig(timeout_s=COLLECTIVE_S),
        )


def _lost(failed: BaseException, setting: GroupSetting) -> ResourceError:
    reason = (str(failed).strip() or type(failed).__name__).splitlines()[-1]
    if isinstance(failed, ControllerError):
        return ResourceError(
            f"{setting.workers} workers of the reference could not be started {MOST_STARTS} times within "
            f"{setting.start_s:.0f} s: other work may hold what they claim; wait for it, or use fewer "
            f"resources.reference_workers ({reason})"
        )
    if isinstance(failed, TrainingFailedError):
        return ResourceError(f"the workers of the reference were lost too often: {reason}")
    return ResourceError(f"Ray Train could not run the workers of the reference: {reason}")


def work(given: dict[str, Any]) -> None:
    """A worker: carry out one order after another until the run ends, and the worker with it.

    A worker that is lost takes the others with it; Ray Train starts all anew, and they find the open order.
    """
    data, run, config = given["place"]
    setting: GroupSetting = given["setting"]
    desk = given["desk"]
    torch.set_num_threads(setting.threads)
    state = RunState.open(data, run, diet_config.RunConfig.model_validate(config))
    peers = Peers.of_group()
    trainer = ReferenceTrainer(state, setting.full_every, peers)
    done = 0
    while True:
        order = ray.get(desk.next_order.remote(done))
        if order is None:
            time.sleep(POLL_S)
            continue
        if order.kind == "end":
            return
        progress = _Progress(desk, order.number, silent=peers.rank > 0)
        try:
            if order.kind == "train":
                event = Event("done", trainer.train(order.stage, progress))
            else:
                event = Event("done", trainer.progressive(order.stage))
        except (DietError, OSError) as error:
            event = Event("failed", error)
        if peers.rank == 0 or event.kind == "failed":
            progress.flush()
            ray.get(desk.answer.remote(order.number, event))
        done = order.number


class _Progress:
    """Reports rows in larger numbers, by one worker for all."""

    def __init__(self, desk: Any, number: int, silent: bool) -> None:
        self.desk, self.number, self.silent, self.rows = desk, number, silent, 0

    def __call__(self, rows: int) -> None:
        self.rows += rows
        if self.rows >= REPORT_EVERY:
            self.flush()

    def flush(self) -> None:
        if self.rows and not self.silent:
            self.desk.answer.remote(self.number, Event("progress", self.rows))
        self.rows = 0

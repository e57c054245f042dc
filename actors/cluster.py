"""Decide what each actor of a run takes, so that nothing waits for a resource that never comes."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Annotated, Any, NamedTuple, TypeVar

import ray
from pydantic import Field

from diet_ray.errors import ResourceError
from diet_ray.strict import Strict

FIXED_ACTORS = 2  # reference model and distiller
WATCH_S = 5.0
TASKS_PER_GPU = 4  # cells and trials: a candidate's dense part and a batch are small


class ResourceConfig(Strict):
    """What the actors of a run take; whatever is None is decided by the size of the cluster."""

    scorers: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None  # of torch, in each actor
    num_cpus: Annotated[float, Field(ge=0)] | None = None  # claimed by each actor
    num_gpus: Annotated[float, Field(ge=0)] | None = None  # claimed by each actor; a share is fine
    # Seconds that a cluster which has become too small for the run may take to grow again.
    patience: Annotated[float, Field(gt=0)] = 300.0


class Plan(NamedTuple):
    """What every actor of a run takes."""

    scorers: int
    threads: int
    num_cpus: float
    num_gpus: float
    patience: float = 300.0

    @property
    def actors(self) -> int:
        return self.scorers + FIXED_ACTORS

    def summary(self) -> str:
        claim = f"{self.num_cpus:g} CPU and {self.num_gpus:g} GPU claimed, {self.threads} threads each"
        return f"1 reference model, {self.scorers} scorer(s), 1 distiller; {claim}"


class CapacityWatch:
    """While it is held, actors do not wait forever for resources that the cluster has lost.

    Once what they claim has not fitted the cluster for `planned.patience` seconds they are killed, and
    whoever waited for them gets a ResourceError.
    """

    def __init__(self, planned: Plan, actors: list[Any], told: Callable[[str], None]) -> None:
        self.planned, self.actors, self.told = planned, actors, told
        self.why = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CapacityWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self.why and error:
            raise ResourceError(self.why) from error

    def _watch(self) -> None:
        since: float | None = None
        while not self._over.wait(WATCH_S):
            have = ray.cluster_resources()
            if self._fits(have):
                since = None
            elif since is None:
                since = time.monotonic()
                self.told(f"{self._short(have)}; waiting {self.planned.patience:.0f} s for it to grow again")
            elif time.monotonic() - since >= self.planned.patience:
                self.why = f"{self._short(have)}. Everything committed stands, and the same command goes on"
                for actor in self.actors:
                    ray.kill(actor)
                return

    def _fits(self, have: Mapping[str, float]) -> bool:
        cpus, gpus = (self.planned.actors * each for each in (self.planned.num_cpus, self.planned.num_gpus))
        # One CPU stays free where any is claimed, as in `plan`.
        return cpus + bool(cpus) <= have.get("CPU", 0) and gpus <= have.get("GPU", 0)

    def _short(self, have: Mapping[str, float]) -> str:
        actors, planned = self.planned.actors, self.planned
        return (
            f"the cluster has shrunk to {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs, but the "
            f"{actors} actors claim {actors * planned.num_cpus:g} and {actors * planned.num_gpus:g}"
        )


Key = TypeVar("Key")


def as_finished(running: Mapping[Any, Key]) -> Iterator[tuple[Key, Any]]:
    """Keys of tasks (reference -> key) with their references, in the order in which they end."""
    waiting = dict(running)
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1)
        yield waiting.pop(done[0]), done[0]


def gpu_share(cluster: Mapping[str, float]) -> float:
    """What a small task takes of a GPU; 0 where there is none."""
    return 1 / TASKS_PER_GPU if cluster.get("GPU") else 0.0


def plan(resources: dict[str, float], wanted: ResourceConfig) -> Plan:
    """Fill in what `wanted` leaves open.

    Raises ResourceError, with what to change, where the actors would wait forever: Ray Data and short tasks
    need one CPU that no actor holds.
    """
    cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    default_scorers = max(1, int(gpus) - FIXED_ACTORS) if gpus else max(1, min(8, cpus - FIXED_ACTORS - 1))
    scorers = wanted.scorers or default_scorers
    actors = scorers + FIXED_ACTORS
    # Actors that claim nothing cannot starve each other; on a small machine that is the only safe claim.
    num_cpus = wanted.num_cpus if wanted.num_cpus is not None else float(cpus > actors)
    num_gpus = wanted.num_gpus if wanted.num_gpus is not None else _share(gpus, actors)
    if cpus < 1 or num_cpus * actors > cpus - 1:
        raise ResourceError(
            f"{actors} actors with {num_cpus:g} CPU each do not leave one of {cpus} CPUs free, and the run "
            "would hang; set resources.num_cpus to 0, or fewer resources.scorers"
        )
    if num_gpus * actors > gpus:
        raise ResourceError(
            f"{actors} actors with {num_gpus:g} GPU each need more than the {gpus:g} GPUs there are, and the "
            f"run would hang; set resources.num_gpus to {_share(gpus, actors):g}, or fewer resources.scorers"
        )
    # Training of the next block runs beside the scoring or distilling of this one.
    threads = wanted.threads or max(1, cpus // (scorers + 1))
    return Plan(scorers, threads, num_cpus, num_gpus, wanted.patience)


def _share(gpus: float, actors: int) -> float:
    return 1.0 if gpus >= actors else int(100 * gpus / actors) / 100

"""Reserves what the actors of a run claim, all or nothing, and watches that the cluster can still hold it."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.placement import Node, Plan, cluster_nodes
from diet_ray.errors import ResourceError

READY_S = 60.0  # for a group that fits the nodes there are
REMIND_S = 30.0
PAUSE_S = 0.2  # Ray has been seen to return from a wait at once while an autoscaler was at work
WATCH_S = 5.0


class Reservation:
    """A bundle per actor of a plan, reserved together before any actor starts.

    A pending group is what makes an autoscaler bring nodes. Actors that claim nothing need no reservation.

    Attributes:
        workers: what the workers of the reference take, where they are several. Ray Train reserves for
            itself, so this is held until all is there, and given back as it starts; None without claims.
    """

    def __init__(self, plan: Plan, report: Callable[[str], None]) -> None:
        """Wait until all is reserved.

        Raises:
            ResourceError: where it is not within `plan.scale_up` seconds (or a minute).
        """
        self.plan = plan
        bundles = plan.bundles()
        self.bundles = bundles[: plan.reserved]
        self.group = _asked_for(self.bundles)
        self.workers = _asked_for(bundles[plan.reserved :])
        if self._groups():
            self._wait(report)

    def options(self, number: int) -> dict[str, Any]:
        """Actor options of the actor with this number, from 0."""
        bundle = self.bundles[number]
        kinds = {name: amount for name, amount in bundle.items() if name not in ("CPU", "GPU")}
        claim: dict[str, Any] = {
            "num_cpus": self.plan.claim.cpus,
            "num_gpus": self.plan.claim.gpus,
            "resources": kinds,
        }
        if self.group and bundle:
            # Ray takes no empty bundle.
            index = sum(map(bool, self.bundles[:number]))
            claim["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                self.group, placement_group_bundle_index=index
            )
        return claim

    def release(self) -> None:
        """Give everything back; actors that still run are killed."""
        for group in self._groups():
            remove_placement_group(group)

    def _groups(self) -> list[PlacementGroup]:
        return [group for group in (self.group, self.workers) if group]

    def _ready(self, within: float) -> bool:
        """Whether all is reserved after at most `within` seconds for each group."""
        return all(group.wait(within) for group in self._groups())

    def _wait(self, report: Callable[[str], None]) -> None:
        limit = max(READY_S, self.plan.scale_up)
        started = reminded = time.monotonic()
        while not self._ready(min(REMIND_S, max(PAUSE_S, started + limit - time.monotonic()))):
            now = time.monotonic()
            if now - started >= limit:
                self.release()
                raise ResourceError(
                    f"{self.plan.demand()} could not be reserved within {limit:.0f} s on "
                    f"{_supply(cluster_nodes())}: other work holds them, or no autoscaler brought nodes; "
                    "claim less with --resources.*"
                )
            if now - reminded >= REMIND_S:
                reminded = now
                report(f"waiting for {self.plan.demand()}; the cluster has {_supply(cluster_nodes())}")
            time.sleep(PAUSE_S)


def _asked_for(bundles: Sequence[dict[str, float]]) -> PlacementGroup | None:
    """A group of those bundles that claim anything; Ray takes no empty one."""
    claims = [bundle for bundle in bundles if bundle]
    return placement_group(claims, strategy="PACK") if claims else None


class CapacityWatch:
    """While it is active, actors do not wait forever for resources that the cluster has lost.

    Once what they claim has not fitted the nodes for `plan.patience` seconds they are killed, and whoever
    waited for them gets a ResourceError.
    """

    def __init__(self, plan: Plan, actors: list[Any], report: Callable[[str], None]) -> None:
        self.plan, self.actors, self.report = plan, actors, report
        self.reason = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CapacityWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self.reason and error:
            raise ResourceError(self.reason) from error

    def _watch(self) -> None:
        since: float | None = None
        while not self._stopped.wait(WATCH_S):
            nodes = cluster_nodes()
            if self.plan.fits(nodes):
                since = None
            elif since is None:
                since = time.monotonic()
                self.report(
                    f"{self._shortage(nodes)}; waiting {self.plan.patience:.0f} s for it to grow again"
                )
            elif time.monotonic() - since >= self.plan.patience:
                self.reason = (
                    f"{self._shortage(nodes)}. Committed stages are kept; rerun the same command to resume"
                )
                for actor in self.actors:
                    ray.kill(actor)
                return

    def _shortage(self, nodes: Sequence[Node]) -> str:
        return f"the cluster has shrunk to {_supply(nodes)}, which cannot hold {self.plan.demand()}"


def _supply(nodes: Sequence[Node]) -> str:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"{len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs"

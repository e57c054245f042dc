"""Decides what each actor of a run claims, by packing claims onto the devices of each node.

Sums of resources say nothing: three actors of 0.66 GPU never start on two GPUs, for a share lies on one
device. So a plan is checked as Ray will place it, node by node and device by device, before anything starts.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from diet_ray.errors import ResourceError
from diet_ray.strict import Strict

DISTILLERS = 1
MOST_CPU_SCORERS = 8  # by default, on a cluster without GPUs
OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")
RESOLUTION = 10_000  # Ray counts shares of a device in ten-thousandths
SLIVER = 0.001  # of a custom resource, which says where an actor runs and not how many do
TASKS_PER_GPU = 4  # cells and trials: a candidate's dense part and a batch are small

Auto = Literal["auto"]


class RoleNodes(Strict):
    """Where each role of a run may be placed: a custom resource that its nodes declare, such as `spot` with
    `ray start --resources '{"spot": 1}'` or in a cluster file; "" is any node."""

    reference: str = ""
    """Nodes of the reference model."""
    scorers: str = ""
    """Nodes of the scorers."""
    distiller: str = ""
    """Nodes of the distiller."""


class ResourceConfig(Strict):
    """What the actors of a run take; whatever is "auto" is decided by the size of the cluster."""

    scorers: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Number of scoring actors."""
    reference_workers: Annotated[int, Field(ge=1)] = 1
    """Workers that learn the reference together, by Ray Train where they are several; for tables that do not
    fit one device. The memory is the same bit for bit on the same number."""
    full_checkpoint_every: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Of how many checkpoints of the reference one is full, and no increment over the one before; auto: when
    the increments since the last full one have as many rows as it."""
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Threads of torch in each actor."""
    num_cpus: Annotated[float, Field(ge=0)] | Auto = "auto"
    """CPUs that each actor claims."""
    num_gpus: Annotated[float, Field(ge=0)] | Auto = "auto"
    """GPUs that each actor claims: a share of one, or a whole number."""
    scale_up: Annotated[float, Field(ge=0)] = 0.0
    """Seconds to wait for an autoscaler to bring nodes that the claims need; 0 uses the nodes there are."""
    patience: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that a cluster which has become too small for the run may take to grow again."""
    nodes: RoleNodes = RoleNodes()


class Node(NamedTuple):
    """The resources of one machine of the cluster."""

    cpus: float
    gpus: float
    kinds: frozenset[str] = frozenset()  # names of its custom resources

    def __str__(self) -> str:
        own = f" with {', '.join(sorted(self.kinds))}" if self.kinds else ""
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs{own}"

    def offers(self, kinds: Iterable[str]) -> bool:
        """Whether it is of one of the kinds; "" is any node."""
        return any(not kind or kind in self.kinds for kind in kinds)


class Claim(NamedTuple):
    """What one actor or task claims."""

    cpus: float
    gpus: float

    def fits(self, node: Node) -> int:
        """How many of these claims the node can hold at once; claims of nothing have no limit."""
        by_cpu = math.inf if not self.cpus else math.floor(node.cpus / self.cpus + 1e-9)
        return int(min(by_cpu, self._by_device(int(node.gpus)), UNLIMITED))

    def _by_device(self, devices: int) -> float:
        if not self.gpus:
            return math.inf
        if self.gpus > 1:
            return devices // math.ceil(self.gpus)
        return devices * (RESOLUTION // math.ceil(self.gpus * RESOLUTION - 1e-6))


UNLIMITED = 10**6


class Plan(NamedTuple):
    """What every actor of a run claims."""

    scorers: int
    threads: int
    claim: Claim
    scale_up: float = 0.0
    patience: float = 300.0
    reference_workers: int = 1
    full_every: int | Auto = "auto"
    nodes: RoleNodes = RoleNodes()

    @property
    def actors(self) -> int:
        """All that claim something."""
        return self.scorers + self.reference_workers + DISTILLERS

    @property
    def reserved(self) -> int:
        """Actors of the driver's own reservation; several workers of the reference have one of Ray Train."""
        return self.actors if self.reference_workers == 1 else self.scorers + DISTILLERS

    def roles(self) -> list[tuple[str, int, str]]:
        """Each role with its number of actors and the kind of nodes it asks for."""
        return [
            ("reference model", self.reference_workers, self.nodes.reference),
            ("scorer", self.scorers, self.nodes.scorers),
            ("distiller", DISTILLERS, self.nodes.distiller),
        ]

    def demand(self) -> str:
        """What all actors claim, in words."""
        each = f"{self.actors} actors with {self.claim.cpus:g} CPU and {self.claim.gpus:.4g} GPU each"
        where = [f"{role} on nodes with {kind}" for role, _, kind in self.roles() if kind]
        return f"{each} ({', '.join(where)})" if where else each

    def bundles(self) -> list[dict[str, float]]:
        """What each actor claims: the distiller, the scorers, the workers of the reference."""
        claim = {"CPU": self.claim.cpus, "GPU": self.claim.gpus}
        where = [self.nodes.distiller] + [self.nodes.scorers] * self.scorers
        where += [self.nodes.reference] * self.reference_workers
        claims = [claim | ({kind: SLIVER} if kind else {}) for kind in where]
        return [{name: amount for name, amount in each.items() if amount} for each in claims]

    def fits(self, nodes: Sequence[Node]) -> bool:
        """Whether all actors can run at once, with a CPU to spare for tasks where any actor claims one.

        Claims are alike, so by Hall's theorem they can where no group of roles has more actors than fit on
        the nodes that any of the group may use.
        """
        roles = self.roles()
        groups = [group for size in range(len(roles)) for group in combinations(roles, size + 1)]

        def held(counts: Sequence[int], group: tuple[tuple[str, int, str], ...]) -> bool:
            kinds = [kind for _, _, kind in group]
            room = sum(count for node, count in zip(nodes, counts, strict=True) if node.offers(kinds))
            return sum(actors for _, actors, _ in group) <= room

        return any(all(held(counts, group) for group in groups) for counts in _counts(nodes, self.claim))


def cluster_nodes() -> list[Node]:
    """The living nodes of the connected cluster."""
    import ray  # here, because options of commands are read with ResourceConfig: `--help` waits for no Ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0), frozenset(filter(_is_custom, resources)))
        for resources in alive
    ]


def _is_custom(resource: str) -> bool:
    """Whether a resource is one that somebody declared, and not Ray's own or a reservation's."""
    return resource not in OWN_RESOURCES and ":" not in resource and "_group_" not in resource


def capacity(nodes: Sequence[Node], claim: Claim) -> int:
    """How many claims the nodes hold at once, with one CPU left over for tasks where a claim has any."""
    return max((sum(counts) for counts in _counts(nodes, claim)), default=0)


def _counts(nodes: Sequence[Node], claim: Claim) -> Iterator[list[int]]:
    """How many claims each node holds, for each node that can spare a CPU for tasks where a claim has any."""
    counts = [claim.fits(node) for node in nodes]
    if not claim.cpus or sum(counts) >= UNLIMITED:
        yield counts
        return
    for number, node in enumerate(nodes):
        if node.cpus >= 1:
            left = claim.fits(node._replace(cpus=node.cpus - 1))
            yield [*counts[:number], left, *counts[number + 1 :]]


def plan(nodes: Sequence[Node], requested: ResourceConfig) -> Plan:
    """Fill in what `requested` leaves to the cluster.

    Raises:
        ResourceError: where the claims cannot be placed on the nodes and no autoscaler is waited for, or can
            never be placed; the message says what to change.
    """
    cpus, gpus = int(sum(node.cpus for node in nodes)), int(sum(node.gpus for node in nodes))
    workers = requested.reference_workers
    scorers = _scorers(nodes, requested) if requested.scorers == "auto" else requested.scorers
    actors = scorers + workers + DISTILLERS
    num_gpus = gpu_share(gpus, actors) if requested.num_gpus == "auto" else requested.num_gpus
    if num_gpus > 1 and num_gpus != int(num_gpus):
        raise ResourceError(f"resources.num_gpus is {num_gpus:g}: above 1 it must be a whole number")
    if workers > 1 and 0 < num_gpus < 1:
        raise ResourceError(
            f"{workers} resources.reference_workers need a whole GPU each, not {num_gpus:g}: use fewer, "
            "or fewer resources.scorers"
        )
    num_cpus = 1.0 if requested.num_cpus == "auto" else requested.num_cpus
    # The next block is trained while this one is scored or distilled.
    threads = max(1, cpus // (scorers + workers)) if requested.threads == "auto" else requested.threads
    chosen = Plan(
        scorers,
        threads,
        Claim(num_cpus, num_gpus),
        requested.scale_up,
        requested.patience,
        workers,
        requested.full_checkpoint_every,
        requested.nodes,
    )
    if requested.num_cpus == "auto" and not chosen.fits(nodes):
        # Actors that claim none cannot starve each other.
        chosen = chosen._replace(claim=Claim(0.0, num_gpus))
    if not chosen.fits(nodes) and not requested.scale_up:
        raise ResourceError(_advice(nodes, chosen))
    if cpus < 1:
        raise ResourceError("the cluster has no CPU: a run needs at least one for its tasks")
    return chosen


def gpu_share(gpus: int, claims: int) -> float:
    """The largest share 1/k, or whole device, with which `claims` claims fit on `gpus` devices; 0 of none."""
    if not gpus:
        return 0.0
    per_device = -(-claims // gpus)
    return math.floor(RESOLUTION / per_device) / RESOLUTION


def task_claim(nodes: Iterable[Node], cpus: float = 1.0, gpus: float | None = None) -> Claim:
    """What a cell or a trial claims: a share of a GPU where there are any."""
    if gpus is None:
        gpus = 1 / TASKS_PER_GPU if any(node.gpus >= 1 for node in nodes) else 0.0
    return Claim(cpus, gpus)


def _scorers(nodes: Sequence[Node], requested: ResourceConfig) -> int:
    """One on each GPU that the other roles leave, of the nodes that scorers may use."""
    kind = requested.nodes.scorers
    usable = [node for node in nodes if node.offers([kind])]
    roles = (
        (requested.reference_workers, requested.nodes.reference),
        (DISTILLERS, requested.nodes.distiller),
    )
    others = sum(actors for actors, own in roles if not kind or own in ("", kind))
    if gpus := int(sum(node.gpus for node in usable)):
        return max(1, gpus - others)
    return max(1, min(MOST_CPU_SCORERS, int(sum(node.cpus for node in usable)) - others - 1))


def _advice(nodes: Sequence[Node], chosen: Plan) -> str:
    claim, actors = chosen.claim, chosen.actors
    gpus = int(sum(node.gpus for node in nodes))
    changes = []
    if capacity(nodes, claim._replace(cpus=0)) < actors:
        share = gpu_share(gpus, actors)
        changes.append(
            f"set resources.num_gpus to {share:g} or less" if gpus else "set resources.num_gpus to 0"
        )
    if capacity(nodes, claim._replace(gpus=0)) < actors:
        changes.append("set resources.num_cpus to 0")
    if chosen.scorers > 1:
        changes.append("use fewer resources.scorers")
    if capacity(nodes, claim) >= actors:
        changes.append("name other nodes in resources.nodes")
    shown = ", ".join(str(node) for node in nodes[:4])
    more = f" and {len(nodes) - 4} more nodes" if len(nodes) > 4 else ""
    return (
        f"{chosen.demand()} do not fit on the nodes "
        f"({shown}{more}) with a CPU to spare, and would wait forever: {', or '.join(changes)}, or let an "
        "autoscaler bring nodes with resources.scale_up"
    )


def placement_rows(chosen: Plan) -> list[dict[str, Any]]:
    """The plan as rows of a table: role, count, what each takes."""
    takes = {
        "CPU": f"{chosen.claim.cpus:g}",
        "GPU": f"{chosen.claim.gpus:.4g}",
        "threads": str(chosen.threads),
    }
    return [
        {"role": role, "count": str(count), **takes, "on": kind or "any node"}
        for role, count, kind in chosen.roles()
    ]

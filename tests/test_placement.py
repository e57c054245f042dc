"""What the actors claim can be placed on the devices of every node, and what would hang is refused."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.placement import (
    SLIVER,
    Claim,
    Node,
    Plan,
    ResourceConfig,
    RoleNodes,
    capacity,
    gpu_share,
    plan,
    task_claim,
)
from actors.reservation import CapacityWatch, Reservation
from diet_ray.errors import ResourceError

UNIT = 10_000  # Ray counts shares in ten-thousandths


def placeable(nodes: list[Node], claim: Claim, actors: int) -> bool:
    """Whether Ray can start all actors at once, and a task of one CPU beside actors that claim any."""
    if not claim.cpus:
        return placed(nodes, claim, actors)
    spare = [(n, node._replace(cpus=node.cpus - 1)) for n, node in enumerate(nodes) if node.cpus >= 1]
    return any(placed([*nodes[:n], node, *nodes[n + 1 :]], claim, actors) for n, node in spare)


def placed(nodes: list[Node], claim: Claim, actors: int) -> bool:
    """Place actors one after another: on any node with a free CPU and room on one device.

    A simulation in integers, independent of the rule that it checks. Claims are alike, so whatever node and
    device is taken first, as many fit in the end.
    """
    cpus = [round(node.cpus * UNIT) for node in nodes]
    devices = [[UNIT] * int(node.gpus) for node in nodes]
    cpu, gpu = round(claim.cpus * UNIT), round(claim.gpus * UNIT)
    for _ in range(actors):
        for number, free in enumerate(devices):
            taken = room(free, gpu)
            if cpus[number] >= cpu and taken is not None:
                cpus[number] -= cpu
                for device in taken:
                    free[device] -= min(gpu, UNIT)
                break
        else:
            return False
    return True


def room(free: list[int], gpu: int) -> list[int] | None:
    """The devices that a claim takes; None where there is no room."""
    count = max(1, gpu // UNIT) if gpu else 0
    able = [device for device, left in enumerate(free) if left >= min(gpu, UNIT)]
    return able[:count] if len(able) >= count else None


NODES = st.lists(st.builds(Node, st.integers(0, 64), st.integers(0, 16)), min_size=1, max_size=6).filter(
    lambda nodes: sum(node.cpus for node in nodes) >= 1
)


@given(nodes=NODES)
def test_no_default_hangs(nodes: list[Node]) -> None:
    chosen = plan(nodes, ResourceConfig())
    assert placeable(nodes, chosen.claim, chosen.actors)
    assert (chosen.claim.gpus > 0) == any(node.gpus for node in nodes)
    assert chosen.threads >= 1


@given(
    nodes=NODES,
    scorers=st.integers(1, 20) | st.just("auto"),
    cpus=st.sampled_from([0, 0.5, 1, 2, 4, "auto"]),
    gpus=st.sampled_from([0, 0.1, 0.25, 1 / 3, 0.5, 0.66, 0.7, 1, 2, "auto"]),
)
def test_every_plan_can_be_placed_or_is_refused_with_advice(
    nodes: list[Node], scorers: Any, cpus: Any, gpus: Any
) -> None:
    wanted = ResourceConfig(scorers=scorers, num_cpus=cpus, num_gpus=gpus)
    try:
        chosen = plan(nodes, wanted)
    except ResourceError as refused:
        assert "resources." in str(refused)
        return
    assert placeable(nodes, chosen.claim, chosen.actors)


def test_two_gpus_hold_three_actors_as_halves() -> None:
    """0.66 each was the default that hung: two fit, the third waited forever."""
    chosen = plan([Node(8, 2)], ResourceConfig())
    assert (chosen.scorers, chosen.claim) == (1, Claim(1.0, 0.5))
    refused = r"3 actors with 0 CPU and 0\.66 GPU.*set resources\.num_gpus to 0\.5"
    with pytest.raises(ResourceError, match=refused):
        plan([Node(8, 2)], ResourceConfig(num_gpus=0.66))


@pytest.mark.parametrize(
    ("gpus", "scorers", "share"),
    [(0, 8, 0), (1, 1, 0.3333), (2, 1, 0.5), (3, 1, 1), (4, 2, 1), (8, 6, 1), (16, 14, 1)],
)
def test_the_default_takes_a_device_per_actor_where_there_are_enough(
    gpus: int, scorers: int, share: float
) -> None:
    chosen = plan([Node(64, gpus)], ResourceConfig())
    assert (chosen.scorers, chosen.claim.gpus) == (scorers, share)
    assert chosen.reference_workers == 1


def test_workers_of_a_reference_have_whole_gpus_and_a_reservation_of_their_own() -> None:
    chosen = plan([Node(64, 8)], ResourceConfig(reference_workers=4))
    assert (chosen.scorers, chosen.actors, chosen.reserved) == (3, 8, 4)
    assert chosen.roles() == [("reference model", 4, ""), ("scorer", 3, ""), ("distiller", 1, "")]
    alone = plan([Node(64, 8)], ResourceConfig(reference_workers=1))
    assert (alone.scorers, alone.actors, alone.reserved) == (6, 8, 8)
    with pytest.raises(
        ResourceError, match=r"2 resources\.reference_workers need a whole GPU each, not 0\.5"
    ):
        plan([Node(8, 2)], ResourceConfig(reference_workers=2))
    assert plan([Node(8, 0)], ResourceConfig(reference_workers=2, scorers=1)).claim == Claim(1, 0)


def test_shares_do_not_cross_devices_or_nodes() -> None:
    assert Claim(0, 0.6).fits(Node(0, 4)) == 4
    assert Claim(0, 0.3333).fits(Node(0, 4)) == 12
    assert Claim(0, 0.34).fits(Node(0, 4)) == 8
    assert Claim(0, 2).fits(Node(0, 3)) == 1
    assert capacity([Node(4, 1), Node(4, 1)], Claim(0, 2)) == 0
    assert [gpu_share(2, claims) for claims in (1, 2, 3, 4, 5)] == [1, 1, 0.5, 0.5, 0.3333]


def test_a_cpu_stays_free_for_tasks() -> None:
    assert capacity([Node(3, 0)], Claim(1, 0)) == 2
    assert capacity([Node(2, 0), Node(3, 0)], Claim(2, 0)) == 2  # the odd CPU is the spare one
    assert plan([Node(2, 0)], ResourceConfig()).claim == Claim(0, 0)
    with pytest.raises(ResourceError, match=r"set resources\.num_cpus to 0"):
        plan([Node(3, 0)], ResourceConfig(num_cpus=1))


def test_what_can_never_be_placed_is_refused_by_its_key() -> None:
    with pytest.raises(ResourceError, match=r"num_gpus is 1\.5: above 1 it must be a whole number"):
        plan([Node(64, 8)], ResourceConfig(num_gpus=1.5))
    with pytest.raises(ResourceError, match=r"set resources\.num_gpus to 0"):
        plan([Node(16, 0)], ResourceConfig(num_gpus=0.5))
    with pytest.raises(ResourceError, match="the cluster has no CPU"):
        plan([Node(0, 0)], ResourceConfig(num_cpus=0))


def test_an_autoscaler_may_bring_what_is_missing() -> None:
    chosen = plan([Node(4, 0)], ResourceConfig(num_gpus=1, scorers=6, scale_up=600))
    assert chosen.claim.gpus == 1 and chosen.scale_up == 600


def test_a_task_claims_a_quarter_of_a_gpu_where_there_is_one() -> None:
    assert task_claim([Node(8, 0)]) == Claim(1, 0)
    assert task_claim([Node(8, 0), Node(8, 1)]) == Claim(1, 0.25)
    assert task_claim([Node(8, 2)], 2, 0.4) == Claim(2, 0.4)


KINDS = st.sampled_from(["", "spot", "fixed"])
KIND_NODES = st.lists(
    st.builds(
        Node,
        st.integers(0, 8),
        st.integers(0, 3),
        st.frozensets(st.sampled_from(["spot", "fixed"])),
    ),
    min_size=1,
    max_size=5,
)


def matched(nodes: list[Node], chosen: Plan) -> bool:
    """Whether every actor gets a place on a node that its role asks for: augmenting paths, actor by actor."""
    spaces = []
    for node in nodes:
        room = next(count for count in range(100) if not placed([node], chosen.claim, count + 1))
        spaces += [node] * room
    actors = [kind for _, count, kind in chosen.roles() for _ in range(count)]
    taken: dict[int, int] = {}

    def moved(actor: int, seen: set[int]) -> bool:
        for place, node in enumerate(spaces):
            kind = actors[actor]
            if place not in seen and (not kind or kind in node.kinds):
                seen.add(place)
                if place not in taken or moved(taken[place], seen):
                    taken[place] = actor
                    return True
        return False

    return all(moved(actor, set()) for actor in range(len(actors)))


@given(nodes=KIND_NODES, reference=KINDS, scorers=KINDS, distiller=KINDS, count=st.integers(1, 6))
def test_roles_fit_where_each_finds_a_node_of_its_kind(
    nodes: list[Node], reference: str, scorers: str, distiller: str, count: int
) -> None:
    where = RoleNodes(reference=reference, scorers=scorers, distiller=distiller)
    chosen = Plan(count, 1, Claim(1, 0.5), nodes=where)
    spare = [[*nodes[:n], node._replace(cpus=node.cpus - 1), *nodes[n + 1 :]] for n, node in enumerate(nodes)]
    able = any(matched(left, chosen) for left, node in zip(spare, nodes, strict=True) if node.cpus >= 1)
    assert chosen.fits(nodes) == able


def test_scorers_take_the_gpus_of_their_kind() -> None:
    nodes = [Node(8, 0), Node(16, 4, frozenset({"on_demand"})), *[Node(8, 1, frozenset({"spot"}))] * 3]
    where = RoleNodes(reference="on_demand", distiller="on_demand", scorers="spot")
    chosen = plan(nodes, ResourceConfig(nodes=where))
    assert (chosen.scorers, chosen.claim) == (3, Claim(1, 1))
    assert chosen.bundles() == [
        {"CPU": 1, "GPU": 1, "on_demand": SLIVER},
        *[{"CPU": 1, "GPU": 1, "spot": SLIVER}] * 3,
        {"CPU": 1, "GPU": 1, "on_demand": SLIVER},
    ]
    refused = r"scorer on nodes with spot.*name other nodes in resources\.nodes"
    with pytest.raises(ResourceError, match=refused):
        plan(nodes, ResourceConfig(nodes=where, scorers=4, num_gpus=1))
    with pytest.raises(ResourceError, match=r"reference model on nodes with fast"):
        plan(nodes, ResourceConfig(nodes=RoleNodes(reference="fast")))


class FakeCluster:
    """`cluster_nodes` and `ray.kill` of a cluster that loses CPUs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *cpus: float) -> None:
        self.cpus: list[float] = list(cpus)
        self.killed: list[Any] = []
        monkeypatch.setattr("actors.reservation.cluster_nodes", self.nodes)
        monkeypatch.setattr("actors.reservation.ray.kill", self.killed.append)
        monkeypatch.setattr("actors.reservation.WATCH_S", 0.01)

    def nodes(self) -> list[Node]:
        return [Node(self.cpus.pop(0) if len(self.cpus) > 1 else self.cpus[0], 0)]


def test_actors_do_not_wait_for_what_the_cluster_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, messages = FakeCluster(monkeypatch, 8, 2), []
    chosen = plan([Node(8, 0)], ResourceConfig(scorers=1, num_cpus=1, patience=0.05))
    watch = CapacityWatch(chosen, ["a", "b", "c"], messages.append)
    shrunk = r"shrunk to 1 nodes with 2 CPUs and 0 GPUs, which cannot hold 3 actors with 1 CPU and 0 GPU each"
    with pytest.raises(ResourceError, match=shrunk), watch:
        while not cluster.killed:
            time.sleep(0.01)
        time.sleep(0.05)
        raise RuntimeError("an actor died")
    assert cluster.killed == ["a", "b", "c"] and len(messages) == 1 and "waiting 0 s" in messages[0]


def test_a_cluster_that_grows_again_in_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, messages = FakeCluster(monkeypatch, 8, 2, 2, 8), []
    chosen = plan([Node(8, 0)], ResourceConfig(scorers=1, num_cpus=1, patience=60))
    with CapacityWatch(chosen, ["a"], messages.append):
        while len(cluster.cpus) > 1:
            time.sleep(0.01)
        time.sleep(0.05)
    assert not cluster.killed and len(messages) == 1


class FakeGroups:
    """Placement groups of a cluster that has room for some bundles."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.made, self.removed = room, list[FakeGroup](), list[FakeGroup]()
        monkeypatch.setattr("actors.reservation.placement_group", self._make)
        monkeypatch.setattr("actors.reservation.remove_placement_group", self.removed.append)
        monkeypatch.setattr("actors.reservation.cluster_nodes", lambda: [Node(8, 0)])
        monkeypatch.setattr("actors.reservation.READY_S", 0.05)

    def _make(self, bundles: list[dict[str, float]], strategy: str) -> "FakeGroup":
        self.room -= len(bundles)
        self.made.append(FakeGroup(len(bundles), fits=self.room >= 0))
        return self.made[-1]


class FakeGroup:
    def __init__(self, bundles: int, fits: bool) -> None:
        self.bundles, self.fits = bundles, fits

    def wait(self, seconds: float) -> bool:
        if not self.fits:
            time.sleep(seconds)
        return self.fits


def test_workers_of_a_reference_are_reserved_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all is given back where there is no room for them; two runs would each wait for the other's."""
    chosen = plan([Node(8, 0)], ResourceConfig(reference_workers=3, scorers=2, num_cpus=1))
    groups = FakeGroups(monkeypatch, room=6)
    reserved = Reservation(chosen, lambda message: None)
    assert [group.bundles for group in groups.made] == [3, 3]
    assert reserved.workers is groups.made[1] and not groups.removed  # type: ignore[comparison-overlap]
    reserved.release()
    assert groups.removed == groups.made
    groups = FakeGroups(monkeypatch, room=5)
    with pytest.raises(ResourceError, match="6 actors with 1 CPU and 0 GPU each could not be reserved"):
        Reservation(chosen, lambda message: None)
    assert groups.removed == groups.made


def test_one_reference_has_a_place_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = FakeGroups(monkeypatch, room=4)
    reserved = Reservation(plan([Node(8, 0)], ResourceConfig(scorers=2, num_cpus=1)), lambda message: None)
    assert [group.bundles for group in groups.made] == [4] and reserved.workers is None

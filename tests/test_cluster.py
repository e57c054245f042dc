"""What the actors take of a cluster, and the refusal of what would hang."""

import time

import pytest

from actors.cluster import CapacityWatch, Plan, ResourceConfig, plan
from diet_ray.errors import ResourceError


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("gpus", [0, 1, 2, 3, 8])
def test_a_default_plan_leaves_a_cpu_free_and_fits_the_gpus(cpus: int, gpus: int) -> None:
    found = plan({"CPU": cpus, "GPU": gpus}, ResourceConfig())
    actors = found.scorers + 2
    assert found.num_cpus * actors <= cpus - 1
    assert found.num_gpus * actors <= gpus
    assert (found.num_gpus > 0) == (gpus > 0)
    assert found.threads >= 1


def test_two_cores_without_gpu_claim_nothing() -> None:
    found = plan({"CPU": 2}, ResourceConfig())
    assert (found.scorers, found.num_cpus, found.num_gpus, found.threads) == (1, 0, 0, 1)
    assert "1 reference model, 1 scorer(s), 1 distiller; 0 CPU" in found.summary()


def test_eight_gpus_give_each_actor_one() -> None:
    found = plan({"CPU": 64, "GPU": 8.0}, ResourceConfig())
    assert (found.scorers, found.num_gpus) == (6, 1.0)


def test_claiming_every_cpu_is_refused_with_advice() -> None:
    with pytest.raises(ResourceError, match=r"would hang; set resources\.num_cpus to 0"):
        plan({"CPU": 3}, ResourceConfig(num_cpus=1))


def test_claiming_more_gpus_than_there_are_is_refused_with_advice() -> None:
    with pytest.raises(ResourceError, match=r"set resources\.num_gpus to 0\.33"):
        plan({"CPU": 16, "GPU": 1}, ResourceConfig(num_gpus=1, scorers=1))
    with pytest.raises(ResourceError, match="more than the 0 GPUs"):
        plan({"CPU": 16}, ResourceConfig(num_gpus=0.5))


class FakeCluster:
    """`ray.cluster_resources` and `ray.kill` of a cluster that loses CPUs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *cpus: float) -> None:
        self.cpus, self.killed = list(cpus), []
        monkeypatch.setattr("actors.cluster.ray.cluster_resources", self.resources)
        monkeypatch.setattr("actors.cluster.ray.kill", self.killed.append)
        monkeypatch.setattr("actors.cluster.WATCH_S", 0.01)

    def resources(self) -> dict[str, float]:
        return {"CPU": self.cpus.pop(0) if len(self.cpus) > 1 else self.cpus[0]}


def test_actors_do_not_wait_for_what_the_cluster_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, told = FakeCluster(monkeypatch, 8, 2), []
    watch = CapacityWatch(Plan(1, 1, 1, 0, patience=0.05), ["a", "b", "c"], told.append)
    with (
        pytest.raises(
            ResourceError, match=r"shrunk to 2 CPUs and 0 GPUs, but the 3 actors claim 3 and 0\. Ev"
        ),
        watch,
    ):
        while not cluster.killed:
            time.sleep(0.01)
        time.sleep(0.05)
        raise RuntimeError("an actor died")
    assert cluster.killed == ["a", "b", "c"] and len(told) == 1 and "waiting 0 s" in told[0]


def test_a_cluster_that_grows_again_in_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, told = FakeCluster(monkeypatch, 8, 2, 2, 8), []
    with CapacityWatch(Plan(1, 1, 1, 0, patience=60), ["a"], told.append):
        while len(cluster.cpus) > 1:
            time.sleep(0.01)
        time.sleep(0.05)
    assert not cluster.killed and len(told) == 1

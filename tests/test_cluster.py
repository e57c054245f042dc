"""What the actors take of a cluster, and the refusal of what would hang."""

import socket
from pathlib import Path

import pytest

from actors.cluster import ResourceConfig, cluster_started, plan
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
    assert "1 reference model, 1 scorer(s), 1 distiller; 0 CPU" in found.told()


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


def test_a_started_cluster_is_found_and_a_dead_one_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not cluster_started()
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        (tmp_path / "ray/ray_current_cluster").write_text(address)
        assert cluster_started()
    assert not cluster_started()
    (tmp_path / "ray/ray_current_cluster").write_text("")
    assert not cluster_started()

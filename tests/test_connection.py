"""Joining a cluster, and what a lost actor is reported as."""

import socket
from pathlib import Path

import pytest
import ray

from actors.connection import cluster_started, user_errors
from diet_ray.errors import ResourceError


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


def test_a_lost_actor_is_reported_with_what_to_do() -> None:
    lost = r"an actor was lost .* it is gone.*committed stages are kept; rerun the same command to resume"
    with pytest.raises(ResourceError, match=lost), user_errors():
        raise ray.exceptions.ActorUnavailableError("it is gone", None)

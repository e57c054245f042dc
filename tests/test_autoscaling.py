"""Ray's autoscaler brings the nodes of the cluster file that a run's reservation asks for.

The nodes are processes of this machine (Ray's provider for its own tests); all else is as after `ray up`.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml

from tests.small_cluster import title

ROOT = Path(__file__).parents[1]
SCORERS = 2
HEAD, HEAD_ID = "ray.head.default", "f" * 51 + "00000"  # as Ray's provider for tests has them
pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def local_cluster(address: str) -> dict[str, Any]:
    """cluster.yaml with this machine in place of AWS; CPUs are left out, for a worker is started on each."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    kinds = config["available_node_types"]
    for kind in kinds.values():
        kind["resources"] |= {"CPU": 1, "object_store_memory": 80_000_000}
        kind["node_config"] = {}
    kinds[HEAD] = kinds.pop("head")
    kinds[HEAD]["resources"].pop("object_store_memory")
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": config["cluster_name"],
        "max_workers": config["max_workers"],
        "upscaling_speed": config["upscaling_speed"],
        "idle_timeout_minutes": config["idle_timeout_minutes"],
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": HEAD_ID,
            "gcs_address": address,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": HEAD,
        "available_node_types": kinds,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in commands},
    }


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Log folder of a head with an autoscaler and no worker; RAY_ADDRESS says where."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    address = f"{ray.util.get_node_ip_address()}:{port}"
    own = tempfile.mkdtemp(prefix="ray")
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(local_cluster(address)))
    for name, value in {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_TMPDIR": own,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ADDRESS": address,
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",  # Ray starts no node that has more GPUs than it shows
    }.items():
        monkeypatch.setenv(name, value)
    command = ["ray", "start", "--head", "--block", "--num-cpus=1", f"--port={port}", "--disable-usage-stats"]
    command += ["--include-dashboard=false", f"--autoscaling-config={tmp_path / 'cluster.yaml'}"]
    fake = {
        "RAY_enable_autoscaler_v2": "1",  # as `ray up` starts it
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with (tmp_path / "head").open("wb") as out:
        started = subprocess.Popen(
            command, env={**os.environ, **fake}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for(port, started, tmp_path / "head")
        yield Path(own, "ray", "session_latest", "logs")
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(60)
        finally:
            end_children(own)
            shutil.rmtree(own, ignore_errors=True)


def wait_for(port: int, started: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert started.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def end_children(own: str) -> None:
    """Kill what is left of the nodes that the autoscaler started: all of them name the folder."""
    for process in psutil.process_iter():
        if own in title(process):
            process.kill()


def test_a_pending_reservation_brings_the_nodes_that_the_roles_ask_for(logs: Path) -> None:
    words = [sys.executable, "-m", "tests.scaled_reservation", str(SCORERS)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in logs.glob("monitor.*"))
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kinds"] == [["on_demand"], *[["spot"]] * SCORERS, ["on_demand"]]
    assert found["said"] <= 5  # a line every half a minute

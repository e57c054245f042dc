"""`ray job submit --working-dir . -- python -m pipelines.distill ...` on a local head."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from diet_ray.runs.run import Run
from tests.tiny_run import TINY

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
    except urllib.error.HTTPError:
        return True  # it is there, and wants a token
    except OSError:
        return False
    return True


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This Python first on the path; and a token, for a head is open to whoever reaches its port."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def dashboard(surroundings: None, tmp_path: Path) -> Iterator[str]:
    """Address of the dashboard of a head of two CPUs, which ends with the test."""
    port, gcs = free_port(), free_port()
    # A folder of its own (sockets need a short path): a head that is killed leaves its address behind.
    own = tempfile.mkdtemp(prefix="ray")
    command = ["ray", "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}", f"--temp-dir={own}"]
    with (tmp_path / "head").open("wb") as out:
        head = subprocess.Popen(
            [*command, f"--dashboard-port={port}"], stdout=out, stderr=out, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not answers(f"{url}/api/version"):
            assert head.poll() is None and time.monotonic() < deadline, (tmp_path / "head").read_text()
            time.sleep(1)
        yield url
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)
        shutil.rmtree(own, ignore_errors=True)


def submit(dashboard: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["ray", "job", "submit", "--address", dashboard, "--working-dir", str(ROOT), "--"]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run([*command, "python", "-m", *words], capture_output=True, text=True)
        # The agent that starts jobs comes up after the dashboard.
        if "No available agent" not in done.stdout + done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def test_a_submitted_job_distils_and_a_wrong_one_fails(
    dashboard: str, drift_log: str, tmp_path: Path
) -> None:
    config, run = tmp_path / "with a space.yaml", str(tmp_path / "run")
    config.write_text(yaml.safe_dump(TINY.model_dump(mode="json")))
    words = ("pipelines.distill", "--data", drift_log, "--run", run, "--config", str(config))
    done = submit(dashboard, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stage 3 committed" in done.stdout
    assert Run.read(run).stage == 3
    wrong = submit(dashboard, *words, "--ratio", "0.5")
    assert wrong.returncode != 0 and "another config: ratio" in wrong.stdout

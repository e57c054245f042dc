"""A Ray head with a dashboard and a token on this machine, and what is said to it on the command line."""

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
from contextlib import contextmanager
from pathlib import Path

import pytest

CPUS = 2
AGENT_S = 120


@contextmanager
def local_head(folder: Path) -> Iterator[str]:
    """Address of the dashboard of a head that ends with the context; its token is in this environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        (folder / "token").write_text(secrets.token_hex(32))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        port = _free_port()
        # A folder of its own (sockets need a short path): a head that is killed leaves its address behind.
        own = tempfile.mkdtemp(prefix="ray")
        words = [
            f"--num-cpus={CPUS}",
            f"--port={_free_port()}",
            f"--temp-dir={own}",
            f"--dashboard-port={port}",
            # Else the one port of all heads of a machine, without which an agent starts no job.
            f"--dashboard-agent-listen-port={_free_port()}",
        ]
        with (folder / "head").open("wb") as out:
            command = ["ray", "start", "--head", "--block", *words]
            head = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 120
            while not _answers(f"{url}/api/version"):
                assert head.poll() is None and time.monotonic() < deadline, (folder / "head").read_text()
                time.sleep(1)
            yield url
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            head.wait(60)
            shutil.rmtree(own, ignore_errors=True)


def job(dashboard: str, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`ray job VERB`; tried again while the agent that starts jobs is not up, which follows the dashboard."""
    command = ["ray", "job", verb, "--address", dashboard, *words]
    deadline = time.monotonic() + AGENT_S
    while True:
        done = subprocess.run(command, capture_output=True, text=True)
        if "No available agent" not in done.stdout + done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
    except urllib.error.HTTPError:
        return True  # it is there, and wants a token
    except OSError:
        return False
    return True

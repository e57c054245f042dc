"""A distillation in a process of its own that can be killed at a chosen moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_S = 240


def start(data: str, run: str, config: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines.distill", "--data", data, "--run", run, "--config", config]
    with log.open("ab") as out:
        # A session of its own: its Ray processes can be found and must go by themselves.
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=Path(__file__).parents[1])


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> None:
    """SIGKILL the driver as soon as `moment` comes; it must not end before."""
    deadline = time.monotonic() + DEADLINE_S
    while not moment():
        assert process.poll() is None, f"ended with {process.returncode} before it was to be killed"
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def finish(process: subprocess.Popen[bytes]) -> None:
    assert process.wait(DEADLINE_S) == 0

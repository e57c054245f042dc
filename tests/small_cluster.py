"""A Ray cluster of `ray start` on this machine, whose nodes can be killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

OURS = ("ray::ReferenceModel", "ray::Scorer", "ray::Distiller")
RAY = str(Path(sys.executable).with_name("ray"))


class SmallCluster:
    """A head, and a second node while one is wanted; leave it with `stop`."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
        words = ("--head", "--node-ip-address=127.0.0.1", f"--port={self.port}", "--include-dashboard=false")
        self.head = self._start(*words)
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{self.port}"
        self._wait(self.head)
        self.node: subprocess.Popen[bytes] | None = None

    def add_node(self) -> None:
        # An address of its own: a driver takes the node of its own address for its own.
        self.node = self._start(f"--address=127.0.0.1:{self.port}", "--node-ip-address=127.0.0.2")
        self._wait(self.node)

    def kill_node(self) -> list[str]:
        """SIGKILL every process of the second node; return which of our actors were among them."""
        assert self.node
        killed = _kill_tree(self.node)
        self.node = None
        return sorted(name.split()[0] for name in killed if name.startswith(OURS))

    def kill_actor(self, name: str) -> bool:
        """SIGKILL the process of an actor class; whether there was one."""
        found = [process for process in self.processes() if title(process).startswith(f"ray::{name}")]
        for process in found:
            process.kill()
        return bool(found)

    def processes(self) -> list[psutil.Process]:
        """Ray's own and its workers, of both nodes."""
        nodes = [started for started in (self.head, self.node) if started]
        return [child for node in nodes for child in psutil.Process(node.pid).children(recursive=True)]

    def stop(self) -> None:
        for started in (self.node, self.head):
            if started:
                _kill_tree(started)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [RAY, "start", "--block", "--num-cpus=2", "--disable-usage-stats", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env={**os.environ, **self.environment}, **quiet)

    def _wait(self, started: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while not any("raylet" in title(child) for child in psutil.Process(started.pid).children(True)):
            assert started.poll() is None and time.monotonic() < deadline, "no Ray node came up"
            time.sleep(0.2)
        time.sleep(2)


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill_tree(started: subprocess.Popen[bytes]) -> list[str]:
    whole = psutil.Process(started.pid).children(recursive=True)
    titles = [title(process) for process in whole]
    for pid in (started.pid, *(process.pid for process in whole)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    started.wait()
    return titles

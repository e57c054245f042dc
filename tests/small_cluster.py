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
NODE_CPUS = 2
RAY = str(Path(sys.executable).with_name("ray"))
STORE_BYTES = 100_000_000  # of objects, on each node


class SmallCluster:
    """A head, and further nodes while they are wanted; leave it with `stop`.

    Args:
        folder: for Ray's temporary files; its path is short.
        head_cpus: that the head declares.
    """

    def __init__(self, folder: Path, head_cpus: int = NODE_CPUS) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
        words = ("--head", "--node-ip-address=127.0.0.1", f"--port={self.port}", "--include-dashboard=false")
        self.head = self._start(*words, f"--num-cpus={head_cpus}")
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{self.port}"
        self._wait(self.head)
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.added = 0

    def add_node(self) -> None:
        # An address of its own: a driver takes the node of its own address for its own.
        self.added += 1
        address = f"--node-ip-address=127.0.0.{1 + self.added}"
        words = (f"--address=127.0.0.1:{self.port}", address, f"--num-cpus={NODE_CPUS}")
        self.nodes.append(self._start(*words))
        self._wait(self.nodes[-1])

    def kill_node(self, number: int = -1) -> list[str]:
        """SIGKILL every process of a node, not the head; return which of our actors were among them."""
        killed = _kill_tree(self.nodes.pop(number))
        return sorted(name.split()[0] for name in killed if name.startswith(OURS))

    def node_of(self, *titles: str) -> int | None:
        """The number of the node (not the head) with a process whose title starts with one of `titles`."""
        for number, node in enumerate(self.nodes):
            if any(title(child).startswith(titles) for child in _children(node)):
                return number
        return None

    def kill_actor(self, name: str) -> bool:
        """SIGKILL the process of an actor of a class; whether there was one."""
        found = [process for process in self.processes() if title(process).startswith(f"ray::{name}")]
        for process in found[:1]:
            process.kill()
        return bool(found)

    def fill_store(self) -> subprocess.Popen[bytes]:
        """A process that has put twice what the store holds into it, and keeps it until it is ended."""
        fill = (
            "import numpy, ray, time; ray.init(log_to_driver=False); "
            f"refs = [ray.put(numpy.ones({STORE_BYTES // 10}, numpy.uint8)) for _ in range(20)]; "
            "print('filled', flush=True); time.sleep(3600)"
        )
        words, environment = [sys.executable, "-c", fill], {**os.environ, **self.environment}
        filler = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert filler.stdout and filler.stdout.readline() == b"filled\n"
        return filler

    def processes(self) -> list[psutil.Process]:
        """Ray's own and its workers, of both nodes."""
        return [child for node in (self.head, *self.nodes) for child in _children(node)]

    def stop(self) -> None:
        for started in (*self.nodes, self.head):
            _kill_tree(started)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        store = f"--object-store-memory={STORE_BYTES}"
        command = [RAY, "start", "--block", store, "--disable-usage-stats", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env={**os.environ, **self.environment}, **quiet)

    def _wait(self, started: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while not any("raylet" in title(child) for child in _children(started)):
            assert started.poll() is None and time.monotonic() < deadline, "no Ray node came up"
            time.sleep(0.2)
        time.sleep(2)


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _children(started: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(started.pid).children(recursive=True)


def _kill_tree(started: subprocess.Popen[bytes]) -> list[str]:
    whole = _children(started)
    titles = [title(process) for process in whole]
    for pid in (started.pid, *(process.pid for process in whole)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    started.wait()
    return titles

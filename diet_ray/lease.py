"""At most one writer per directory (a run, a prepared log): a lease in it, renewed by a heartbeat.

Whether a holder is alive is decided by its heartbeat and not by a clock: clocks of two machines differ, and
run backwards. On the same machine the process itself is looked up, so that work resumes at once after a
crash.
"""

import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from diet_ray import layout
from diet_ray.errors import DataError, RunError
from diet_ray.storage import Folder

SECONDS = 30.0  # without a heartbeat, after which a holder on another machine counts as dead
BEATS = 3  # heartbeats in that time


class Lease:
    """A context manager; call `check` before every commit."""

    def __init__(self, folder: Folder, seconds: float = SECONDS) -> None:
        self.folder, self.seconds = folder, seconds
        self.token, self.beat = uuid.uuid4().hex, 0
        self.lost_to = ""  # who took the lease
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Lease":
        """Take the lease; RunError names the process that has it."""
        current = _read(self.folder)
        if current and self._alive(current):
            raise RunError(
                f"{self.folder.root} is being written by {_holder(current)}; stop it, or choose another "
                "directory"
            )
        self._write()
        # Of two processes that see the lease free, the one that writes last gets it.
        time.sleep(0.05 if isinstance(self.folder.fs, LocalFileSystem) else 1.0)
        self.check()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._thread.is_alive():
            self._thread.join()
        current = _read(self.folder)
        if current and current["token"] == self.token:
            self.folder.fs.rm(self.folder / layout.LEASE)

    def check(self) -> None:
        """RunError where another process has taken the directory over."""
        current = _read(self.folder)
        if not self.lost_to and (not current or current["token"] != self.token):
            self.lost_to = _holder(current) if current else "a process that removed the lease"
        if self.lost_to:
            raise RunError(f"{self.folder.root} was taken over by {self.lost_to}; this process stops writing")

    def _renew(self) -> None:
        while not self._released.wait(self.seconds / BEATS):
            try:
                self.check()
                self.beat += 1
                self._write()
            except RunError:
                return
            except OSError:
                continue  # the storage may come back; if it does not, the commit fails

    def _alive(self, lease: dict[str, Any]) -> bool:
        # Without /proc a process cannot be looked up: its heartbeat decides, as on another machine.
        if lease["host"] == socket.gethostname() and lease["started"] is not None:
            return started_at(lease["pid"]) == lease["started"]
        deadline = time.monotonic() + lease["seconds"]
        while time.monotonic() < deadline:
            time.sleep(lease["seconds"] / BEATS / 2)
            now = _read(self.folder)
            if not now:
                return False
            if (now["token"], now["beat"]) != (lease["token"], lease["beat"]):
                return True
        return False

    def _write(self) -> None:
        own = {"host": socket.gethostname(), "pid": os.getpid(), "started": started_at(os.getpid())}
        beat = {"token": self.token, "beat": self.beat, "seconds": self.seconds}
        self.folder.write_json(layout.LEASE, {**own, **beat})


def started_at(pid: int) -> int | None:
    """When a process of this machine started, in its own clock; None where there is none, or no /proc."""
    try:
        # The name before the last ")" may hold anything; start time is field 22 of proc(5).
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _holder(lease: dict[str, Any]) -> str:
    return f"process {lease['pid']} on {lease['host']}"


def holder_of(folder: Folder) -> str:
    """The process that holds the lease of a run, alive or not; "nobody" where there is no lease."""
    lease = _read(folder)
    return _holder(lease) if lease else "nobody"


def _read(folder: Folder) -> dict[str, Any] | None:
    if not folder.exists(layout.LEASE):
        return None
    try:
        lease = folder.read_json(layout.LEASE)
        return {key: lease[key] for key in ("token", "host", "pid", "started", "beat", "seconds")}
    except DataError:
        return None  # released between the two reads
    except (KeyError, TypeError) as broken:
        raise RunError(f"{folder / layout.LEASE} is not a lease: {broken}") from broken

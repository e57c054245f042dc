"""At most one writer per run: a lease in the run directory, kept alive by a beat.

Whether a holder lives is told by its beat and not by a clock: clocks of two machines differ, and go
backwards. On the same machine the process itself is looked up, so that a run goes on at once after a crash.
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

from diet_ray.errors import DataError, RunError
from diet_ray.storage import Folder

PATH = "lease.json"
SECONDS = 30.0  # without a beat, after which a holder elsewhere is dead
BEATS = 3  # in that time


class Lease:
    """Hold it with `with`; `check` before every commit."""

    def __init__(self, folder: Folder, seconds: float = SECONDS) -> None:
        self.folder, self.seconds = folder, seconds
        self.token, self.beat = uuid.uuid4().hex, 0
        self.lost = ""  # who took it, while we did not beat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Lease":
        """Raises RunError naming who holds the run."""
        found = _read(self.folder)
        if found and self._alive(found):
            raise RunError(
                f"{self.folder.root} is being written by {_holder(found)}; stop it, or choose another run "
                "directory"
            )
        self._write()
        # Of two that find the lease free, the one that wrote last has it.
        time.sleep(0.05 if isinstance(self.folder.fs, LocalFileSystem) else 1.0)
        self.check()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        found = _read(self.folder)
        if found and found["token"] == self.token:
            self.folder.fs.rm(self.folder / PATH)

    def check(self) -> None:
        """RunError where another process has taken the run over."""
        found = _read(self.folder)
        if not self.lost and (not found or found["token"] != self.token):
            self.lost = _holder(found) if found else "somebody who removed the lease"
        if self.lost:
            raise RunError(f"{self.folder.root} was taken over by {self.lost}; this process stops writing")

    def _keep(self) -> None:
        while not self._over.wait(self.seconds / BEATS):
            try:
                self.check()
                self.beat += 1
                self._write()
            except RunError:
                return
            except OSError:
                continue  # the storage may come back; if it does not, the commit fails

    def _alive(self, found: dict[str, Any]) -> bool:
        if found["host"] == socket.gethostname():
            return started_at(found["pid"]) == found["started"]
        deadline = time.monotonic() + found["seconds"]
        while time.monotonic() < deadline:
            time.sleep(found["seconds"] / BEATS / 2)
            now = _read(self.folder)
            if not now:
                return False
            if (now["token"], now["beat"]) != (found["token"], found["beat"]):
                return True
        return False

    def _write(self) -> None:
        own = {"host": socket.gethostname(), "pid": os.getpid(), "started": started_at(os.getpid())}
        beat = {"token": self.token, "beat": self.beat, "seconds": self.seconds}
        self.folder.write_json(PATH, {**own, **beat})


def started_at(pid: int) -> int | None:
    """When a process of this machine started, in its own clock; None where there is none, or no /proc."""
    try:
        # The name before the last ")" may hold anything; start time is field 22 of proc(5).
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _holder(found: dict[str, Any]) -> str:
    return f"process {found['pid']} on {found['host']}"


def holder_of(folder: Folder) -> str:
    """Who holds the lease of a run, alive or not; "nobody" where none is held."""
    found = _read(folder)
    return _holder(found) if found else "nobody"


def _read(folder: Folder) -> dict[str, Any] | None:
    if not folder.exists(PATH):
        return None
    try:
        found = folder.read_json(PATH)
        return {key: found[key] for key in ("token", "host", "pid", "started", "beat", "seconds")}
    except DataError:
        return None  # released between the two looks
    except (KeyError, TypeError) as broken:
        raise RunError(f"{folder / PATH} is not a lease: {broken}") from broken

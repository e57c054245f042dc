"""One writer per run: a second is refused by name, a dead one is followed at once."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from diet_ray.errors import RunError
from diet_ray.lease import Lease, started_at
from diet_ray.storage import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.at(str(tmp_path))


def held(folder: Folder) -> dict[str, Any]:
    found: dict[str, Any] = folder.read_json("lease.json")
    return found


def other(folder: Folder, **changed: Any) -> None:
    """A lease of another process."""
    own = {"token": "other", "host": socket.gethostname(), "pid": os.getpid(), "beat": 0, "seconds": 0.3}
    folder.write_json("lease.json", {**own, "started": started_at(os.getpid()), **changed})


def test_a_second_writer_is_refused_and_told_who_holds_the_run(folder: Folder) -> None:
    here = f"process {os.getpid()} on {socket.gethostname()}"
    with Lease(folder):
        with pytest.raises(RunError, match=f"is being written by {here}"):
            Lease(folder).__enter__()
        assert held(folder)["pid"] == os.getpid()
    assert not folder.exists("lease.json")
    with Lease(folder) as again:
        again.check()


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once(folder: Folder) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    other(folder, pid=done.pid, seconds=1000)
    with Lease(folder):
        pass


def test_a_process_that_got_the_number_of_a_dead_one_is_not_the_holder(folder: Folder) -> None:
    other(folder, started=1, seconds=1000)
    with Lease(folder):
        pass


def test_a_holder_elsewhere_lives_as_long_as_it_beats(folder: Folder) -> None:
    other(folder, host="elsewhere")
    over = threading.Event()

    def beat() -> None:
        for number in range(1000):
            if over.wait(0.02):
                return
            other(folder, host="elsewhere", beat=number)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(RunError, match="on elsewhere"):
            Lease(folder).__enter__()
    finally:
        over.set()
        beating.join()
    started = time.monotonic()
    with Lease(folder):
        assert time.monotonic() - started >= 0.3  # it was watched for that long


def test_who_lost_the_lease_does_not_commit(folder: Folder) -> None:
    with Lease(folder, seconds=0.15) as lease:
        lease.check()
        other(folder, pid=1, host="elsewhere")
        with pytest.raises(RunError, match="taken over by process 1 on elsewhere"):
            lease.check()
        time.sleep(0.3)
        assert held(folder)["token"] == "other"  # the beat has stopped, the other's lease stands
    assert held(folder)["token"] == "other"


def test_of_many_at_once_one_wins(folder: Folder) -> None:
    won: list[int] = []
    go, seen = threading.Barrier(8), threading.Barrier(8)

    def claim(number: int) -> None:
        go.wait()
        try:
            with Lease(folder):
                won.append(number)
                seen.wait()
        except RunError:
            seen.wait()

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_malformed_lease_is_named(folder: Folder) -> None:
    folder.write_json("lease.json", {"pid": 3})
    with pytest.raises(RunError, match=r"lease\.json is not a lease"):
        Lease(folder).__enter__()

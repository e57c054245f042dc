"""Join a Ray cluster or start Ray here, and keep Ray's wrapping off the errors that come out of it."""

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from diet_ray import errors
from diet_ray.errors import DietError, ResourceError
from diet_ray.models.user_code import own_modules

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in what `ray job submit` runs
TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
# What a task ends with, after Ray's own attempts, where the machines have too little memory or disk.
EXHAUSTED = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.OutOfDiskError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.NodeDiedError,
)

logger = logging.getLogger(__name__)

ANSWER_S = 5.0  # a cluster's port answers in milliseconds, across regions in tenths of a second
HEALTH_S = 30.0
STARTS = 2  # attempts to start Ray here
SLOW_START = "timed out during startup"  # what Ray says of a raylet that does not answer within 30 s
SHORT_TEMP = "/tmp/ray"
SOCKET_BYTES = 107  # longest path of a Unix socket
# As long as what Ray puts below its folder: a session with a process id of seven digits, and a socket in it.
LONGEST_SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.12"


def connect() -> dict[str, float]:
    """Join the cluster of RAY_ADDRESS or of `ray start` here, else start Ray; return the cluster's resources.

    The user's own modules that have been imported by now go to its workers.

    Raises ResourceError where Ray does not start here, or, within a minute, where RAY_ADDRESS names a cluster
    that does not answer or that this process may not join.
    """
    if ray.is_initialized():
        return ray.cluster_resources()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger(TOKEN_LOGGER).addFilter(_is_no_token_notice)
    address = _address()
    # A dashboard of one's own costs seconds and memory; a cluster has its own.
    options: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.WARNING,
    }
    # A job brings its working directory; of what else is started here, other nodes know nothing.
    if JOB_CONFIG not in os.environ and (modules := own_modules()):
        options["runtime_env"] = {"py_modules": modules}
    if address == "local":
        _start(options)
        return ray.cluster_resources()
    try:
        ray.init(address=address, **options)
    except Exception as refused:
        # Whatever Ray says here (no cluster, another version, no token) is about the address.
        raise _unreachable(_first_sentence(refused)) from refused
    return ray.cluster_resources()


def _start(options: dict[str, Any]) -> None:
    """Start Ray here, a second time where the machine was too busy; ResourceError where it does not start."""
    for attempt in range(STARTS):
        try:
            ray.init(address="local", _temp_dir=_temp_folder(), **options)
            return
        except Exception as failed:
            reason = _first_sentence(failed)
            if attempt < STARTS - 1 and SLOW_START in reason:
                logger.warning("%s; trying again", reason)
                continue
            raise ResourceError(
                f"Ray does not start on this machine: {reason}; free memory and disk or wait until the "
                "machine is less busy, then rerun the same command"
            ) from failed


def _first_sentence(error: Exception) -> str:
    return re.split(r"\n|(?<=\.) ", str(error).strip())[0].rstrip(".")


def cluster_started() -> bool:
    """Whether a cluster of `ray start` on this machine answers.

    Ray leaves the address behind when a head dies, and would wait minutes for it.
    """
    recorded = _recorded_address()
    return bool(recorded) and _answers(recorded)


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise a task's DietError or OSError as it was raised there, and ResourceError for a lost actor."""
    try:
        yield
    except ray.exceptions.RayActorError as lost:
        why = str(lost).partition("\n")[0]
        raise _constructor_error(lost) or ResourceError(
            f"an actor was lost and did not come back ({why}); committed stages are kept; rerun the same "
            "command to resume"
        ) from lost
    except EXHAUSTED as lost:
        why = str(lost).partition("\n")[0]
        raise ResourceError(
            f"a worker was lost or ran out of memory or disk ({why}); rerun the same command, on larger "
            "machines if it happens again"
        ) from lost
    except ray.exceptions.RayError as failed:
        cause = _user_cause(failed)
        if cause is None:
            raise
        raise cause from None


def _user_cause(failed: BaseException) -> DietError | OSError | None:
    """What the task raised, below the exceptions that Ray and Ray Data put around it."""
    inner: BaseException | None = failed
    while inner is not None:
        if isinstance(inner, DietError | OSError) and not isinstance(inner, ray.exceptions.RayError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return None


def _constructor_error(lost: ray.exceptions.RayActorError) -> DietError | None:
    """The DietError of an actor's constructor; Ray passes on nothing but its text."""
    raised = re.search(r"^diet_ray\.errors\.(\w+): (.+)", str(lost), re.MULTILINE | re.DOTALL)
    return getattr(errors, raised[1])(raised[2].strip()) if raised else None


def _is_no_token_notice(record: logging.LogRecord) -> bool:
    """Ray announces at each start that it uses the token it should use; that it has none is worth a line."""
    return "authentication is enabled" not in record.getMessage()


def _address() -> str:
    """What to pass to ray.init; ResourceError where RAY_ADDRESS names a cluster that does not answer."""
    given = os.environ.get("RAY_ADDRESS")
    if not given:
        # Only "auto" takes the token that `ray start` left: Ray reads none for an address spelled out.
        return "auto" if cluster_started() else "local"
    if given == "auto":
        # Left to itself, Ray would join whatever Ray of another program runs on this machine.
        if not cluster_started():
            recorded = _recorded_address() or "none is recorded"
            raise _unreachable(f"no cluster of `ray start` answers ({recorded})")
        return given
    scheme, separator, place = given.rpartition("://")
    if given == "local" or (separator and scheme != "ray"):
        return given
    if not _answers(place):
        raise _unreachable("no Ray cluster answers there")
    if not separator and not _is_cluster(place):
        raise _unreachable(f"what listens there is not a Ray cluster, or takes longer than {HEALTH_S:.0f} s")
    return given


def _unreachable(reason: str) -> ResourceError:
    address = os.environ.get("RAY_ADDRESS", "auto")
    return ResourceError(
        f"cannot join the Ray cluster at RAY_ADDRESS={address}: {reason}; start the cluster, or set "
        "RAY_ADDRESS=local to use this machine alone"
    )


def _recorded_address() -> str:
    """host:port of the newest `ray start` on this machine; empty where there is none."""
    file = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    return file.read_text().strip() if file.is_file() else ""


def _answers(address: str) -> bool:
    """Whether something accepts connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _is_cluster(address: str) -> bool:
    """Whether Ray's control service answers there, asked by a process that can be ended when it hangs.

    A cluster that answers with a refusal (another version, no token) is one: joining it says why.
    """
    words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        subprocess.run(words, timeout=HEALTH_S, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return False
    return True


def _temp_folder() -> str | None:
    """Where Ray puts its files; None (its own choice) unless the path of a socket would be too long there.

    Batch systems set TMPDIR to long paths.
    """
    for variable in ("RAY_TMPDIR", "TMPDIR"):
        given = os.environ.get(variable)
        if given:
            if len(os.fsencode(f"{os.path.abspath(given)}/ray/{LONGEST_SOCKET}")) <= SOCKET_BYTES:
                return None
            logger.warning("%s is too long for Ray's sockets: Ray's files go to %s", variable, SHORT_TEMP)
            return SHORT_TEMP
    return None

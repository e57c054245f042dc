"""Joining a cluster, refusing one that is not there, and errors that come out of Ray as they were raised."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from actors import connection
from actors.connection import cluster_started, connect, user_errors
from actors.data import RayMapper
from diet_ray.errors import DataError, ResourceError
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.preparation.prepare import prepare
from pipelines.options.prepare import Prepare
from tests.shop_log import SHOP_YAML, shop_schema


@contextmanager
def listening() -> Iterator[str]:
    """Address of a port that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray seems not to be started, and starting it fails the test."""

    def init(**options: object) -> None:
        raise AssertionError(f"ray.init was called with {options}")

    monkeypatch.setattr("actors.connection.ray.is_initialized", lambda: False)
    monkeypatch.setattr("actors.connection.ray.init", init)


def record(folder: Path, address: str) -> None:
    (folder / "ray").mkdir(exist_ok=True)
    (folder / "ray/ray_current_cluster").write_text(address)


def test_a_started_cluster_is_joined_and_a_dead_one_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not cluster_started()
    with listening() as address:
        record(tmp_path, address)
        assert cluster_started()
    assert not cluster_started()
    record(tmp_path, "")
    assert not cluster_started()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nonsense", "127.0.0.1:port"])
def test_a_cluster_that_does_not_answer_is_refused_with_its_address(
    no_ray: None, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        ResourceError, match=f"RAY_ADDRESS={address}: no Ray cluster answers there; start the"
    ):
        connect()


def test_something_else_at_the_address_is_refused(no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEALTH_S", 0.5)
    with listening() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ResourceError, match=f"RAY_ADDRESS={address}: what listens there is not a Ray"):
            connect()


@pytest.mark.parametrize("recorded", ["127.0.0.1:9", ""])
def test_auto_joins_a_recorded_cluster_alone(
    no_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str
) -> None:
    """Ray itself would join any other program's Ray on this machine."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    record(tmp_path, recorded)
    says = f"RAY_ADDRESS=auto: no cluster of `ray start` answers .{recorded or 'none is recorded'}."
    with pytest.raises(ResourceError, match=says):
        connect()


def test_what_ray_says_of_an_address_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise ConnectionError("wrong version\nsee the documentation")

    monkeypatch.setattr("actors.connection.ray.is_initialized", lambda: False)
    monkeypatch.setattr("actors.connection.ray.init", init)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ResourceError, match=r"http://127\.0\.0\.1:8265: wrong version; start the") as refused:
        connect()
    assert "documentation" not in str(refused.value)


@pytest.mark.parametrize(
    ("failures", "starts"),
    [
        (("The current node timed out during startup. More",), 2),
        (("The current node timed out during startup.",) * 2, 2),
        (("No space left on device",), 1),
    ],
)
def test_a_machine_that_is_too_busy_for_ray_is_tried_twice_and_then_said(
    monkeypatch: pytest.MonkeyPatch, failures: tuple[str, ...], starts: int
) -> None:
    left, calls = list(failures), []

    def init(**options: object) -> None:
        calls.append(options)
        if left:
            raise Exception(left.pop(0))

    monkeypatch.setattr("actors.connection.ray.is_initialized", lambda: False)
    monkeypatch.setattr("actors.connection.ray.init", init)
    monkeypatch.setattr("actors.connection.ray.cluster_resources", dict)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    if len(failures) == 1 and starts == 2:
        assert connect() == {}
    else:
        with pytest.raises(ResourceError, match=f"start on this machine: {failures[-1].rstrip('.')};"):
            connect()
    assert len(calls) == starts


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_rays_files_go_elsewhere_where_a_socket_would_not_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert connection._temp_folder() is None
    longest = 107 - len(f"/ray/{connection.LONGEST_SOCKET}")
    monkeypatch.setenv(variable, "/" + "x" * (longest - 1))
    assert connection._temp_folder() is None
    monkeypatch.setenv(variable, "/" + "x" * longest)
    with caplog.at_level(logging.WARNING):
        assert connection._temp_folder() == "/tmp/ray"
    assert f"{variable} is too long" in caplog.text


def raise_(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    "error", [DataError("row 4 is wrong"), FileNotFoundError(2, "No such file or directory", "log.csv")]
)
def test_a_users_error_leaves_a_task_as_it_was_raised(ray_here: None, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, user_errors():
        ray.get(ray.remote(num_cpus=0)(raise_(error)).remote())
    assert type(raised.value) is type(error) and str(raised.value) == str(error)


def test_a_bug_in_a_task_keeps_its_traceback(ray_here: None) -> None:
    with pytest.raises(ray.exceptions.RayTaskError, match="division by zero"), user_errors():
        ray.get(ray.remote(num_cpus=0)(lambda: 1 / 0).remote())


class Broken:
    """An actor whose constructor finds a mistake in the data."""

    def __init__(self) -> None:
        raise DataError("checkpoint 3 is damaged")

    def work(self) -> None:
        pass


def test_a_users_error_leaves_an_actors_constructor(ray_here: None) -> None:
    with pytest.raises(DataError, match=r"^checkpoint 3 is damaged$"), user_errors():
        ray.get(ray.remote(num_cpus=0)(Broken).remote().work.remote())


def test_a_lost_actor_is_reported_with_what_to_do() -> None:
    with pytest.raises(ResourceError, match=r"it is gone.*; rerun the same command to resume"), user_errors():
        raise ray.exceptions.ActorUnavailableError("it is gone", None)


def test_a_worker_out_of_memory_is_reported_with_what_to_do() -> None:
    with pytest.raises(ResourceError, match=r"no memory.*rerun the same command, on larger"), user_errors():
        raise ray.exceptions.OutOfMemoryError("no memory\nand a page of advice")


def test_a_mapper_returns_results_in_order_and_the_first_users_error(
    ray_here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(number: int) -> int:
        if number > 3:
            raise DataError(f"file {number} is damaged")
        return number * number

    seen: list[tuple[str, int, int]] = []
    mapper = RayMapper(lambda label, done, total: seen.append((label, done, total)))
    assert mapper(work, [1, 2, 3], "squaring") == [1, 4, 9]
    assert seen == [("squaring", done, 3) for done in (1, 2, 3)]
    assert mapper(work, [], "nothing") == []
    capfd.readouterr()
    with pytest.raises(DataError, match=r"^file 5 is damaged$"):
        mapper(work, [1, 5, 6], "squaring")
    assert "Traceback" not in capfd.readouterr().err


def test_a_log_prepared_over_a_cluster_has_the_bytes_of_one_prepared_in_process(
    ray_here: None, shop_log: Path, tmp_path: Path
) -> None:
    schema, source = shop_schema(), str(shop_log / "source")
    prepare(schema, source, str(tmp_path / "out"), RayMapper())
    in_process = shop_log / "out"
    files = sorted(path.relative_to(in_process) for path in in_process.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (in_process / file).read_bytes(), file


def test_a_small_log_is_prepared_in_this_process_and_a_large_one_over_a_cluster(
    no_ray: None, shop_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.yaml").write_text(SHOP_YAML)
    source = shop_log / "source"
    options = Prepare(str(tmp_path / "shop.yaml"), str(tmp_path / "out"), str(source))
    size = sum(file.stat().st_size for file in source.iterdir())
    monkeypatch.setattr("pipelines.prepare.IN_PROCESS_BYTES", size - 1)
    with pytest.raises(ResourceError, match="was called with"):
        options()
    monkeypatch.setattr("pipelines.prepare.IN_PROCESS_BYTES", size)
    options()
    logs = [PreparedLog.open(str(folder / "out")) for folder in (tmp_path, shop_log)]
    assert logs[0].fingerprint == logs[1].fingerprint


def test_a_mapper_needs_no_cluster_before_its_first_item(no_ray: None) -> None:
    assert RayMapper()(os.path.basename, [], "nothing") == []

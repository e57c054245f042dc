"""Fixtures that several test modules share: two small logs, a run, a Ray, and where the real samples are."""

import os
import shutil
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path

import hypothesis
import pytest
import ray
import torch

import diet_ray
from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from diet_ray.log.preparation.prepare import prepare
from tests.shop_log import shop_rows, shop_schema, write_source
from tests.tiny_run import TINY

# As the actors have it on two cores: sums in another number of threads differ in the last bit.
torch.set_num_threads(1)

# Tests never time: on a busy machine an example may take ten times as long as on an idle one.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# Files that take longest, longest first.
LONGEST = "stream", "pipelines", "search", "studies", "kafka", "kill", "logical_gpus"
SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Hide a GPU from all tests but those for it: the others expect the CPU's tensors, equal to the bit."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def built_once(name: str, build: Callable[[Path], object], factory: pytest.TempPathFactory) -> Path:
    """A folder that `build` fills once for all processes of pytest-xdist; the others wait for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In several processes the files that take longest come first, so that none is left for the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def drift_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a prepared log of 6,000 rows; read it, never write to it."""

    def build(folder: Path) -> None:
        config = DriftConfig(rows=6_000, users=300, items=200)
        prepare(drift_schema(config), write_drift_log(config, str(folder)), str(folder))

    return str(built_once("drift", build, tmp_path_factory))


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw log of a shop in `source` and the prepared one in `out`; never write to it."""

    def build(folder: Path) -> None:
        prepare(shop_schema(), write_source(folder / "source", shop_rows()), str(folder / "out"))

    return built_once("shop", build, tmp_path_factory)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real samples, beside a developer's checkout only."""
    if not SHARED.is_dir():
        pytest.skip(f"no real samples at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A small Ray of our own; `connect` finds it started."""
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=150_000_000,
        log_to_driver=False,
    )
    yield
    context.disconnect()


@pytest.fixture(scope="session")
def run_dir(drift_log: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete run, distilled in one process; read it, evaluate it, never change it."""
    whole = built_once(
        "whole",
        lambda folder: diet_ray.distill(drift_log, str(folder), TINY, probe_seeds=0),
        tmp_path_factory,
    )
    run = tmp_path_factory.mktemp("runs") / "whole"  # each process of pytest evaluates a copy of its own
    shutil.copytree(whole, run)
    return str(run)

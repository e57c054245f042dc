"""Fixtures that several test modules share: two small logs and where the real samples are."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import ray
import torch

from actors.placement import ResourceConfig
from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from diet_ray.log.preparation.prepare import prepare
from pipelines.distill import distill
from tests.shop_log import shop_rows, shop_schema, write_source
from tests.tiny_run import TINY

# As the actors have it on two cores: sums in another number of threads differ in the last bit.
torch.set_num_threads(1)

# Tests never time: on a busy machine an example may take ten times as long as on an idle one.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Hide a GPU from all tests but those for it: the others expect the CPU's tensors, equal to the bit."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def drift_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a prepared log of 6,000 rows; read it, never write to it."""
    out, config = str(tmp_path_factory.mktemp("drift")), DriftConfig(rows=6_000, users=300, items=200)
    prepare(drift_schema(config), write_drift_log(config, out), out)
    return out


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw log of a shop in `source` and the prepared one in `out`; never write to it."""
    folder = tmp_path_factory.mktemp("shop")
    prepare(shop_schema(), write_source(folder / "source", shop_rows()), str(folder / "out"))
    return folder


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
def run_dir(ray_here: None, drift_log: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete run; read it, evaluate it, never change it."""
    run = str(tmp_path_factory.mktemp("runs") / "whole")
    distill(drift_log, run, TINY, ResourceConfig())
    return run

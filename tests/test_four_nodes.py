"""A cluster of four nodes loses one at each part of a stage, and ends with the same memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from diet_ray import layout
from tests.small_cluster import SmallCluster
from tests.tiny_run import TINY

ROOT = Path(__file__).parents[1]
DEADLINE_S = 400
NODES = 3  # beside the head, which has no CPU, so that whatever claims one runs on these
# What a process is called while it does a part of a stage.
PARTS = {
    "training": ("ray::ReferenceModel.train",),
    "scoring": ("ray::Scorer.score", "ray::Scorer.align", "ray::Scorer.embed", "ray::Scorer.apply"),
    "distilling": ("ray::Distiller.distill", "ray::Distiller.directions"),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[SmallCluster]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        started = SmallCluster(Path(folder), head_cpus=0)
        yield started
        started.stop()


def wait_for(moment: float, driver: subprocess.Popen[str]) -> None:
    assert time.monotonic() < moment, "it never came to that part"
    assert driver.poll() is None, driver.communicate()[0]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_the_memory_is_the_same(
    cluster: SmallCluster, drift_log: str, run_dir: str, tmp_path: Path, part: str
) -> None:
    while len(cluster.nodes) < NODES:
        cluster.add_node()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TINY.model_dump(mode="json")))
    run = tmp_path / "run"
    words = ("--data", drift_log, "--run", str(run), "--config", str(tmp_path / "config.yaml"))
    claims = ("--resources.num-cpus=1", "--resources.scorers=1", "--resources.threads=1")
    driver = subprocess.Popen(
        [sys.executable, "-m", "pipelines.distill", *words, *claims],
        cwd=ROOT,
        env={**os.environ, **cluster.environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + DEADLINE_S
    while not (run / layout.record(1)).exists():
        wait_for(deadline, driver)
        time.sleep(0.05)
    while (node := cluster.node_of(*PARTS[part])) is None:
        wait_for(deadline, driver)
    lost = cluster.kill_node(node)
    assert lost, "the node that was lost had none of our actors"
    said, _ = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0, said
    assert (run / layout.memory(3)).read_bytes() == (Path(run_dir) / layout.memory(3)).read_bytes()

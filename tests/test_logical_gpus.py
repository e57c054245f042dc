"""On heads with several (logical) GPUs nothing hangs, and the memory is the one without GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from diet_ray import layout
from diet_ray.runs.run import Run

ROOT = Path(__file__).parents[1]
DEADLINE_S = 560


def run_on(log: str, run: Path, cpus: int, gpus: int) -> None:
    words = [sys.executable, "-m", "tests.logical_run", log, str(run), str(cpus), str(gpus)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)  # the placement, for `pytest -rP`


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("cpus", "gpus"),
    [(2, 0), (1, 1), (2, 1), (2, 2), (8, 2), (8, 3), (3, 4), (16, 4), (8, 8), (64, 8), (20, 16)],
)
def test_a_head_of(drift_log: str, run_dir: str, tmp_path: Path, cpus: int, gpus: int) -> None:
    run = tmp_path / "run"
    run_on(drift_log, run, cpus, gpus)
    assert (run / layout.memory(3)).read_bytes() == (Path(run_dir) / layout.memory(3)).read_bytes()
    assert (run / "evaluation/results.parquet").is_file() and (run / "search/best.yaml").is_file()
    assert Run.read(str(tmp_path / "stream/run")).stage == 2

"""On heads with several (logical) GPUs nothing hangs, and the memory is the one without GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from diet_ray import layout

ROOT = Path(__file__).parents[1]
DEADLINE_S = 240


def run_on(log: str, run: Path, cpus: int, gpus: int) -> None:
    words = [sys.executable, "-m", "tests.logical_run", log, str(run), str(cpus), str(gpus)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def check(log: str, whole: str, run: Path, cpus: int, gpus: int) -> None:
    run_on(log, run, cpus, gpus)
    assert (run / layout.memory(3)).read_bytes() == (Path(whole) / layout.memory(3)).read_bytes()
    assert (run / "evaluation/results.parquet").is_file() and (run / "search/best.yaml").is_file()


def test_two_gpus(drift_log: str, run_dir: str, tmp_path: Path) -> None:
    check(drift_log, run_dir, tmp_path / "run", 8, 2)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("cpus", "gpus"), [(2, 0), (1, 1), (2, 1), (2, 2), (8, 3), (3, 4), (16, 4), (8, 8), (64, 8), (20, 16)]
)
def test_other_heads(drift_log: str, run_dir: str, tmp_path: Path, cpus: int, gpus: int) -> None:
    check(drift_log, run_dir, tmp_path / "run", cpus, gpus)

"""`ray job submit --working-dir . -- python -m pipelines.distill ...` on a local head that wants a token."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import diet_ray
from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.runs.run import Run
from tests.local_head import job, local_head
from tests.tiny_run import TINY

ROOT = Path(__file__).parents[1]
HERE = ("--working-dir", str(ROOT))
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_head(tmp_path_factory.mktemp("head")) as url:
        yield url


def words(folder: Path, log: str, config: RunConfig) -> tuple[str, ...]:
    """The command, with a config whose path has a space."""
    path = folder / "with a space.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    given = ("--data", log, "--run", str(folder / "run"), "--config", str(path))
    return ("--", "python", "-m", "pipelines.distill", *given)


def test_a_submitted_job_distils_and_a_wrong_one_fails(
    dashboard: str, drift_log: str, tmp_path: Path
) -> None:
    command = words(tmp_path, drift_log, TINY)
    done = job(dashboard, "submit", *HERE, "--submission-id", "first", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stage 3 (block 0003) committed" in done.stdout
    assert Run.read(str(tmp_path / "run")).stage == 3
    wrong = job(dashboard, "submit", *HERE, "--submission-id", "wrong", *command, "--ratio", "0.5")
    assert wrong.returncode == 1 and "different config (ratio" in wrong.stdout
    # Afterwards, from anywhere: state and logs.
    states = {name: job(dashboard, "status", name).stdout for name in ("first", "wrong")}
    assert "'first' succeeded" in states["first"] and "'wrong' failed" in states["wrong"]
    assert "exit code 2" in states["wrong"] + wrong.stdout  # something to correct: docs/operations.md
    assert "stage 3 (block 0003) committed" in job(dashboard, "logs", "first").stdout


def test_a_stopped_job_resumes_with_the_same_memory(dashboard: str, drift_log: str, tmp_path: Path) -> None:
    outer = TINY.method.outer.model_copy(update={"iterations": 40})
    longer = TINY.model_copy(update={"method": TINY.method.model_copy(update={"outer": outer})})
    run = str(tmp_path / "run")
    command = words(tmp_path, drift_log, longer)
    started = job(dashboard, "submit", *HERE, "--no-wait", "--submission-id", "stopped", *command)
    assert started.returncode == 0, started.stdout + started.stderr
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / layout.record(1)).exists():
        assert time.monotonic() < deadline, job(dashboard, "logs", "stopped").stdout
        time.sleep(0.1)
    stopped = job(dashboard, "stop", "stopped")
    assert stopped.returncode == 0 and "was stopped" in job(dashboard, "status", "stopped").stdout
    assert 1 <= Run.read(run).stage < 3
    resumed = job(dashboard, "submit", *HERE, *command)
    assert resumed.returncode == 0 and "resuming after stage" in resumed.stdout, resumed.stdout
    whole = tmp_path / "whole"
    diet_ray.distill(drift_log, str(whole), longer, probe_seeds=0)
    assert (Path(run) / layout.memory(3)).read_bytes() == (whole / layout.memory(3)).read_bytes()


def test_nobody_without_the_token_submits(
    dashboard: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{dashboard}/api/jobs/", timeout=10)
    assert refused.value.code == 401
    (tmp_path / "other").write_text("0" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    wrong = job(dashboard, "submit", "--", "python", "-c", "print('in')")
    assert wrong.returncode != 0 and "succeeded" not in wrong.stdout

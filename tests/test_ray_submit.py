"""`ray submit cluster.yaml pipelines/distill.py ...`: one file in an empty home, words unquoted.

Ray's own command decides what is copied where and which line the head runs; only SSH is replaced: the file is
copied to an empty folder, and the line is run there as the head's shell runs it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from ray.scripts import scripts

from diet_ray import layout
from tests.tiny_run import TINY

ROOT = Path(__file__).parents[1]


class EmptyHead:
    """A head whose home has nothing; packages are installed, as `setup_commands` does."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.lines, self.done = home, list[str](), list[subprocess.CompletedProcess[str]]()
        home.mkdir()
        monkeypatch.setattr(scripts, "rsync", self.rsync)
        monkeypatch.setattr(scripts, "exec_cluster", self.run)

    def rsync(self, config: str, source: str, target: str, name: Any, *, down: bool, **options: Any) -> None:
        assert not down and target.startswith("~/")
        shutil.copy(ROOT / source, self.home / target.removeprefix("~/"))

    def run(self, config: str, *, cmd: str, **options: Any) -> None:
        self.lines.append(cmd)
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_ADDRESS": "local",
            "PYTHONPATH": str(ROOT),  # in place of pip install
        }
        self.done.append(
            subprocess.run(
                ["bash", "-c", f"({cmd})"], cwd=self.home, env=environment, capture_output=True, text=True
            )
        )

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        result = CliRunner().invoke(scripts.cli, ["submit", "cluster.yaml", "pipelines/distill.py", *words])
        assert result.exit_code == 0, result.output
        return self.done[-1]


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmptyHead:
    return EmptyHead(tmp_path / "home", monkeypatch)


def test_one_file_and_unquoted_words_are_what_arrives(head: EmptyHead) -> None:
    """A path with a space would come apart: the line is what `" ".join` makes of the words."""
    done = head.submit("--data", "/nowhere/a log", "--run", "run")
    assert head.lines == ["python ~/distill.py --data /nowhere/a log --run run"]
    assert done.returncode == 2 and "log" in done.stderr
    assert [path.name for path in head.home.iterdir()] == ["distill.py"]
    missing = head.submit("--data", "/nowhere/log", "--run", "run")
    assert missing.returncode == 2 and "/nowhere/log" in missing.stdout + missing.stderr


@pytest.mark.long
def test_the_file_alone_distils(head: EmptyHead, drift_log: str, run_dir: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(TINY.model_dump(mode="json")))
    run = tmp_path / "run"
    words = ("--config", str(config), "--data", drift_log, "--run", str(run), "--resources.threads", "1")
    done = head.submit(*words, "--probe-seeds", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / layout.memory(3)).read_bytes() == (Path(run_dir) / layout.memory(3)).read_bytes()
    again = head.submit(*words, "--probe-seeds", "0")
    assert again.returncode == 0 and "is complete: 3 stages" in again.stdout + again.stderr

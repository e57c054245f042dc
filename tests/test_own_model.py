"""A class of the user's own through every command, and on workers that do not have its file."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diet_ray.config import ReferenceConfig
from diet_ray.model_config import HeadConfig
from tests.test_docs import write_modules
from tests.tiny_run import TINY

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

COMMANDS = """
import sys
from pipelines.cli import _run

for line in sys.stdin.read().splitlines():
    assert _run(line.split()) == 0, line
"""

SHIPPED = """
import os
import ray
from actors.connection import connect
from diet_ray.models.registry import ModelConfig, build_model

def build():
    model = ModelConfig(name="nets/my_net.py:Shallow")
    return type(build_model(model, fields=3, dim=4, tasks=2, seed=0).backbone).__name__

build()
connect()
os.remove("nets/my_net.py")
os.remove("nets/my_layers.py")
print(ray.get(ray.remote(build).remote()))
"""


def python(code: str, folder: Path, words: str = "") -> str:
    """What a Python of its own prints in that working directory, with a Ray of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        input=words,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_takes_a_class_of_the_users_own(drift_log: str, tmp_path: Path) -> None:
    """By module and by file; the reference's class is the user's own in all of them."""
    write_modules(tmp_path)
    head = HeadConfig(experts=2, expert_hidden=(16,), tower_hidden=(8,))
    own = TINY.model_copy(update={"reference": ReferenceConfig(name="finalnet", ensemble=(), head=head)})
    plain = own.model_dump(mode="json")
    plain["reference"]["name"] = "my_net:Shallow"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    fit = "--epochs 1 --validation-rows 300"
    commands = f"""distill --data {drift_log} --run run --config run.yaml
evaluate --run run --methods warmup,diet --candidates my_net:Shallow,my_net.py:Shallow --seeds 1 {fit}
search --run run --space my_space --samples 2 --confirm 1 {fit}
train --run run --candidate run/search/best.yaml --out model {fit}
study table5 --run run --candidates my_net:Shallow --seeds 1 {fit}
predict --model model --source {drift_log}/source --out scores.parquet"""
    python(COMMANDS, tmp_path, commands)
    assert "my_net:Shallow" in (tmp_path / "model" / "card.json").read_text()
    assert (tmp_path / "scores.parquet").is_file()


def test_a_worker_without_the_files_has_the_class(tmp_path: Path) -> None:
    """As on another node: the files are gone when the task starts."""
    (tmp_path / "nets").mkdir()
    write_modules(tmp_path / "nets")
    net = tmp_path / "nets" / "my_net.py"
    (tmp_path / "nets" / "my_layers.py").write_text("from torch.nn import Linear\n")
    net.write_text(net.read_text() + "import my_layers\n")
    assert python(SHIPPED, tmp_path).split() == ["Shallow"]

"""Every command of README runs as written, in order, on a small log of the shop that it describes.

What cannot run here is listed with the reason; a new command that is neither run nor listed fails.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shop_log import shop_rows, write_source

ROOT = Path(__file__).parents[1]
ROWS = 2000
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

ELSEWHERE = {
    "ray submit": "needs a cluster on AWS; tests/test_ray_submit.py runs the file and the line that it makes",
    "ray job": "needs a bucket; tests/test_job.py submits the same to a local head",
    "diet-ray serve": "lasts until it is stopped; tests/test_serving.py asks a server",
    "curl": "asks that server",
    "make": "targets of the developer, which set up an environment of their own",
    "pip install": "needs the registry",
    "diet-ray rollback": "needs 42 stages; run here to a stage that is there",
}


def commands(text: str) -> list[str]:
    """Indented lines of a page, without their comments."""
    return [line.partition("  #")[0].strip() for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)]


def run(words: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}
    began = time.monotonic()
    done = subprocess.run(words, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True)
    print(f"{time.monotonic() - began:.0f} s: {shlex.join(words)}", flush=True)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_of_readme_run_as_written(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (schema,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "myshop.yaml").write_text(schema, encoding="utf-8")
    rows = shop_rows(ROWS).drop(columns="rating")
    for folder in ("clicks", "incoming", "new_clicks"):
        write_source(tmp_path / folder, rows)
    for command in commands(text):
        if not any(command.startswith(start) for start in ELSEWHERE):
            assert command.startswith("diet-ray "), f"neither run nor listed: {command}"
            run([sys.executable, "-m", "pipelines.cli", *shlex.split(command)[1:]], tmp_path)
    run([sys.executable, "-m", "pipelines.cli", "rollback", "runs/live", "--to", "1"], tmp_path)
    run([sys.executable, "-c", code], tmp_path)
    assert (tmp_path / "scores.parquet").is_file()

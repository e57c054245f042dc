"""Every command of README runs as written, in order, on a small log of the shop that it describes.

What cannot run here is listed with the reason; a new command that is neither run nor listed fails. The stream
of section 7 has a run of its own, waits most of the time, and goes beside the rest.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.shop_log import shop_rows, write_source

ROOT = Path(__file__).parents[1]
ROWS = 1200
STREAM_ROWS = 1000  # a micro-block has no fewer
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
    for folder in ("clicks", "new_clicks"):
        write_source(tmp_path / folder, rows)
    runnable = [line for line in commands(text) if not any(line.startswith(start) for start in ELSEWHERE)]
    assert all(line.startswith("diet-ray ") for line in runnable), f"neither run nor listed: {runnable}"
    first = next(n for n, line in enumerate(runnable) if line.startswith("diet-ray stream "))
    with ThreadPoolExecutor(1) as beside:
        streamed = beside.submit(stream, runnable[first:], tmp_path)
        for line in runnable[:first]:
            diet_ray(line, tmp_path)
        streamed.result()
    run([sys.executable, "-c", code], tmp_path)
    assert (tmp_path / "scores.parquet").is_file()


def stream(lines: list[str], folder: Path) -> None:
    """The commands on a stream, the first of them twice: only a run of two stages can be rolled back."""
    rows = shop_rows(2 * STREAM_ROWS).drop(columns="rating")
    for n in range(2):
        part = rows[n * STREAM_ROWS : (n + 1) * STREAM_ROWS]
        write_source(folder / "incoming", part, f"{n}.parquet")
        diet_ray(lines[0], folder)
    for line in (*lines[1:], "diet-ray rollback runs/live --to 1"):
        diet_ray(line, folder)


def diet_ray(line: str, folder: Path) -> str:
    return run([sys.executable, "-m", "pipelines.cli", *shlex.split(line)[1:]], folder)

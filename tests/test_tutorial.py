"""The tutorial runs as it stands, block after block, and the site is built from it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
PICTURES = ("tutorial-memory.svg", "tutorial-auc.svg")
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def run_page(folder: Path) -> list[str]:
    """Write the titled blocks of the page to files and run the others, in order; return what each printed."""
    blocks = re.findall(
        r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```',
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    # An own Ray and no display, whatever the surroundings have.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "MPLBACKEND": "svg"}
    printed = []
    for language, title, code in blocks:
        if title:
            (folder / title).write_text(code, encoding="utf-8")
            continue
        assert language == "bash"
        words = ["bash", "-euc", code]
        done = subprocess.run(words, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


def test_the_tutorial_ends_with_a_served_model(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"]({picture})" in text for picture in PICTURES)
    printed = run_page(tmp_path)
    assert all((tmp_path / picture).read_text().count("<svg") for picture in PICTURES)
    compared = next(text for text in printed if "mean" in text and "full" in text)
    assert {"warmup", "random", "diet", "full"} <= set(compared.split())
    (answer,) = json.loads(printed[-1][printed[-1].index("[{") :].partition("]")[0] + "]")
    assert answer.keys() == {"clicked", "bought"} and 0 < answer["bought"] < answer["clicked"] < 1


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        "docs/site/mkdocs.yml",
        "-d",
        tmp_path,
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page, says in (("reference", "load_model"), ("index", "diet-ray prepare"), ("tutorial", "clicks")):
        assert says in (tmp_path / f"{page}.html").read_text(encoding="utf-8")
    assert "<code>&gt;&gt;&gt;" not in (tmp_path / "reference.html").read_text(encoding="utf-8")

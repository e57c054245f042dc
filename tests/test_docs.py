"""The documentation is true: its links and files exist, its commands parse, its schemas are valid."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
import yaml

from diet_ray.log.schema import parse_schema
from diet_ray.models.registry import build_model
from pipelines.cli import COMMANDS
from tune_spaces.space import load_space, sample

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def commands() -> Iterator[str]:
    """Every line of a page that is a `diet-ray` command, continued lines joined."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^    (diet-ray .+)$", text, re.MULTILINE):
            yield line.partition("  #")[0].strip()


def schemas() -> Iterator[str]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```yaml[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        yield from (block for block in blocks if "\ntime:" in block)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(anchor, headings), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"\b[a-z_]+/[a-z0-9_/]+\.py\b", page.read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "diet_ray", ROOT / "pipelines")
    assert not [name for name in named if not any((place / name).exists() for place in places)]


def write_modules(folder: Path) -> None:
    """Write my_net.py and my_space.py, whose code blocks begin with their names."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for name in ("my_net.py", "my_space.py"):
        (code,) = (block for block in blocks if block.startswith(f"# {name}"))
        (folder / name).write_text(code)


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the user's own modules as the pages have them."""
    write_modules(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", list(dict.fromkeys(commands())))
def test_commands_parse(command: str, user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, name, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", ["diet-ray", name, *words])
    options = getattr(import_module(f"pipelines.options.{COMMANDS[name].module}"), COMMANDS[name].name)
    given = {"default": options.defaults()} if hasattr(options, "defaults") else {}
    tyro.cli(options, args=words, **given)


def test_the_guides_own_architecture_and_space_work(user_folder: Path) -> None:
    (space,) = load_space("my_space")
    candidate = sample((space,), np.random.default_rng(0))
    model = build_model(candidate, fields=3, dim=4, tasks=2, seed=0)
    assert model(torch.zeros(5, 3, 4)).shape == (5, 2)


@pytest.mark.parametrize("schema", list(schemas()))
def test_schemas_are_valid(schema: str) -> None:
    assert parse_schema(yaml.safe_load(schema), "of the page").blocks


def test_the_readme_fits_two_screens() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120

"""Imports go one way: between the packages, and between the rooms of diet_ray."""

import ast
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "diet_ray": {"ray", "actors", "pipelines", "tune_spaces"},
    "actors": {"pipelines", "tune_spaces"},
    "tune_spaces": {"pipelines"},
}
# The rooms of diet_ray, lowest first: each imports only from those before it, and from itself.
ROOMS = (
    ("errors", "seeding", "layout", "version"),
    ("strict", "storage", "memory_schema"),
    ("lease",),
    ("log", "model_config", "stored_config"),
    ("models",),
    ("config",),
    ("training",),
    ("distillation",),
    ("runs",),
    ("evaluation",),
    ("local",),
)


def imported(file: Path) -> set[str]:
    """Modules that a file imports, by their full names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_imports_of_packages_go_one_way(layer: str) -> None:
    files = list((ROOT / layer).rglob("*.py"))
    assert files
    for file in files:
        assert not {name.split(".")[0] for name in imported(file)} & FORBIDDEN[layer], file


def test_every_file_of_diet_ray_has_a_room() -> None:
    rooms = {path.stem for path in (ROOT / "diet_ray").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__", "py"} == {room for level in ROOMS for room in level}


@pytest.mark.parametrize("room", [room for level in ROOMS for room in level])
def test_imports_of_rooms_go_one_way(room: str) -> None:
    place = ROOT / "diet_ray" / room
    files = list(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    below = {name for level in takewhile(lambda level: room not in level, ROOMS) for name in level}
    for file in files:
        used = {name.split(".")[1] for name in imported(file) if name.startswith("diet_ray.")}
        assert used <= below | {room}, f"{file}: {sorted(used - below - {room})}"


def test_files_and_folders_stay_small() -> None:
    for package in ("diet_ray", "actors", "pipelines", "tune_spaces"):
        for file in (ROOT / package).rglob("*.py"):
            lines = len(file.read_text().splitlines())
            assert lines <= 300, f"{file} has {lines} lines"
            beside = len(list(file.parent.glob("*.py")))
            # Commands lie flat, because `ray submit` copies a single file.
            most = 20 if file.parent.name == "pipelines" else 16
            assert beside <= most, f"{file.parent} has {beside} files"

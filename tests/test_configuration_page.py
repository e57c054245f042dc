"""docs/configuration.md says what the config classes say."""

import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_configuration.py"))


def test_the_committed_page_is_the_generated_one(generator: dict[str, Any]) -> None:
    committed = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert committed == generator["page"](), "docs/configuration.md is out of date: run `make docs`"


@pytest.mark.parametrize(
    "row",
    [
        "| `reference.ensemble` | list of text | `[dcnv2, finalmlp, wukong]` | Architectures that learn",
        "| `method.inner.window` | int > 0 | `5` | Last steps of the inner loop",
        "| `rehearsal_weight` | float > 0 or `auto` | `auto` | Weight of all rehearsed rows",
        "| `fields[].from` | text | required |",
        "| `tasks` | list of section (at least 1, at most 8) | required |",
        "| `stream.keep_last` | int ≥ 2 | `3` | Newest stages whose files are kept. |",
    ],
)
def test_a_key_has_its_type_default_and_description(generator: dict[str, Any], row: str) -> None:
    assert f"\n{row}" in generator["page"]()


@pytest.mark.parametrize("chapter", ["Run", "Fit", "Candidate", "Stream", "Kafka", "Drift"])
def test_every_option_of_a_command_has_a_description(generator: dict[str, Any], chapter: str) -> None:
    text = generator["page"]().split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows and not [row for row in rows if row.endswith("|  |")]

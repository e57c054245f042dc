"""docs/scale.md has what the model computes, the model what its constants say, and its commands run."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from benchmarks.scale_model import (
    ALIGN,
    BATCH,
    CONSTANTS,
    GPUS,
    IDS,
    ROWS,
    SCORE,
    STEP,
    Assumed,
    page,
    stage,
)
from pipelines.options.distill import Distill

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ASSUMED = Assumed()


def test_the_committed_tables_are_the_computed_ones() -> None:
    committed = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert "| 1e+10 | 1e+09 |" in committed
    assert committed == page(committed, ASSUMED), "run python -m benchmarks.scale_model --write docs/scale.md"


def test_a_constant_names_a_page_that_exists() -> None:
    for constant in CONSTANTS:
        assert any(file.name in constant.source for file in DOCS.glob("*.md")), constant


def test_a_stage_of_one_gpu_is_the_sum_of_its_parts_by_hand() -> None:
    made = stage(10**8, 10**7, 1, ASSUMED, grows=False)
    assert made.train == pytest.approx(10**8 / BATCH * STEP.value)
    reading = 2 * 10**8 * 51 / 1e9
    tables = 10**7 * 32 * 4 / 1e9
    assert made.score == pytest.approx(10**8 / SCORE.value + 10**8 / ALIGN.value + reading + tables)
    assert made.seconds(1) == pytest.approx(made.train + made.checkpoint + made.score + made.distill)


@pytest.mark.parametrize("grows", [False, True])
def test_more_gpus_are_not_slower_and_hold_more(grows: bool) -> None:
    for rows in ROWS:
        for ids in IDS:
            made = [stage(rows, ids, gpus, ASSUMED, grows) for gpus in GPUS]
            fits = [not each.obstacle for each in made]
            assert fits == sorted(fits)
            seconds = [each.seconds(gpus) for each, gpus in zip(made, GPUS, strict=True) if not each.obstacle]
            assert all(later <= earlier * 1.02 for earlier, later in itertools.pairwise(seconds))
            assert all(sum(each.split) == gpus - 1 for each, gpus in zip(made[1:], GPUS[1:], strict=True))


def test_what_does_not_fit_is_said() -> None:
    assert stage(10**8, 10**9, 1, ASSUMED, grows=False).bottleneck() == "tables do not fit"
    assert stage(10**8, 2 * 10**9, 64, ASSUMED, grows=False).bottleneck() == "rows of a scorer do not fit"
    assert stage(10**10, 10**7, 64, ASSUMED, grows=False).bottleneck() == "memory does not fit"


ELSEWHERE = {
    "python -m benchmarks.cluster_simulation": "takes a quarter of an hour, and wrote docs/simulation.json",
}


def test_the_commands_of_the_page_run_as_written(tmp_path: Path) -> None:
    text = (DOCS / "scale.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?:`|<!-- begin: )(python [^`]+?)(?:`| -->)", text)
    assert set(ELSEWHERE) < set(commands), commands
    page_of_user = tmp_path / "docs" / "scale.md"
    page_of_user.parent.mkdir()
    page_of_user.write_text(text.replace("| 1e+10 |", "| stale |"), encoding="utf-8")
    for command in set(commands) - set(ELSEWHERE):
        words = [sys.executable, *shlex.split(command)[1:]]
        subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert page_of_user.read_text(encoding="utf-8") == text


def test_the_options_that_the_page_recommends_parse() -> None:
    text = (DOCS / "scale.md").read_text(encoding="utf-8")
    (options,) = re.findall(r"`(--[^`]+)`", text)
    words = ["--data", "data/log", "--run", "runs/log", *shlex.split(options)]
    reference = tyro.cli(Distill, args=words, default=Distill.defaults()).settings.reference
    assert (reference.name, reference.ensemble) == ("dcnv2", ())

"""The command line: what it accepts, what it says of a mistake."""

import json
import sys
from pathlib import Path

import pytest
import tyro

from pipelines import cli
from pipelines.distill import Distill
from pipelines.runtime.command import option


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Exit code of `diet-ray words...`."""
    monkeypatch.setattr(sys, "argv", ["diet-ray", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def distill_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> Distill:
    monkeypatch.setattr(sys, "argv", ["diet-ray", "distill", *words])
    return tyro.cli(Distill, args=list(words), default=Distill.defaults())


@pytest.mark.parametrize("command", ["prepare", "distill", "evaluate", "search", "train", "inspect"])
def test_help_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert f"$ diet-ray {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("prepare", "--dataset", "nothing.yaml", "--source", "x", "--out", "y"),
            "no dataset 'nothing.yaml'",
        ),
        (("prepare", "--dataset", "globo", "--out", "y"), "--dataset globo needs --source"),
        (("prepare", "--dataset", "drift", "--source", "x", "--out", "y"), "leave --source out"),
        (("distill", "--data", "nowhere", "--run", "y"), "nowhere is not a prepared log"),
        (("distill", "--data", "x", "--run", "y", "--config", "glbo"), "no config 'glbo'"),
        (("evaluate", "--run", "nowhere"), "nowhere is not a run"),
        (
            ("evaluate", "--run", "x", "--methods", "diet,deit"),
            "--methods contains 'deit'; choose from cold",
        ),
        (("evaluate", "--run", "x", "--methods", ","), "--methods is empty"),
        (("evaluate", "--run", "x", "--seeds", "0"), "--seeds is 0"),
        (("evaluate", "--run", "x", "--candidates", "a.yaml"), "candidate a.yaml cannot be read"),
        (("search", "--run", "x", "--space", "jiont"), "no search space 'jiont'"),
        (("search", "--run", "nowhere"), "nowhere is not a run"),
        (("search", "--run", "x", "--samples", "0"), "--samples is 0"),
        (("train", "--run", "nowhere", "--candidate", "dcn", "--out", "y"), "nowhere is not a run"),
        (("inspect", "nowhere"), "nowhere is not a run"),
    ],
)
def test_a_mistake_is_told_in_a_line_without_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error:") and message in told and "Traceback" not in told


@pytest.mark.parametrize(
    "words",
    [
        ("distill", "--data", "x", "--run", "y", "--ratoi", "0.1"),
        ("distill", "--data", "x", "--run", "y", "--ratio", "much"),
        ("distill", "--run", "y"),
        ("train",),
    ],
)
def test_an_unknown_or_missing_argument_ends_with_two(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *words) == 2


def test_a_value_out_of_range_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "distill", "--data", "x", "--run", "y", "--ratio", "1.5") == 2
    assert "ratio" in capsys.readouterr().err


def test_options_override_the_recipe_which_overrides_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--data", "x", "--run", "y", "--config", "demo", "--ratio", "0.03")
    config = distill_of(monkeypatch, *words).settings.run_config()
    assert config.ratio == 0.03
    assert config.dim == 16  # of the recipe
    assert config.method.inner.horizon == 20  # of the defaults


def test_an_option_is_found_in_both_its_forms() -> None:
    assert option("--config", ["--data", "x", "--config", "globo"]) == "globo"
    assert option("--config", ["--config=globo", "--data", "x"]) == "globo"
    assert option("--config", ["--data", "x"]) is None


def test_inspect_shows_stages_survival_and_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_dir: str
) -> None:
    assert run(monkeypatch, "inspect", run_dir, "--verify") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("files verified", "Stages", "Surviving rows", "is_click+long_view"))


def test_inspect_prints_records_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_dir: str
) -> None:
    assert run(monkeypatch, "inspect", run_dir, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["stage"] for record in records] == [1, 2, 3]

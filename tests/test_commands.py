"""The command line: what it accepts, what it says of a mistake."""

import ast
import dataclasses
import json
import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import tyro

import diet_ray
from diet_ray.errors import ConfigError
from pipelines import cli
from pipelines.options.distill import Distill
from pipelines.runtime.command import guarded, keeping, mistake, option, say_next
from pipelines.runtime.help_text import fold


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Exit code of `diet-ray words...`."""
    monkeypatch.setattr(sys, "argv", ["diet-ray", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def distill_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> Distill:
    monkeypatch.setattr(sys, "argv", ["diet-ray", "distill", *words])
    return tyro.cli(Distill, args=list(words), default=Distill.defaults())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_an_example_and_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, command, "--help") == 0
    printed = capsys.readouterr().out
    assert f"$ diet-ray {command}" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_long_example_can_be_pasted_as_it_is_folded() -> None:
    line = "$ diet-ray stream --dataset clicks.yaml --source in/ --run runs/live --until-idle 60 --json-log"
    folded = fold(line, 60)
    assert all(len(part) <= 60 for part in folded.splitlines()) and len(folded.splitlines()) == 2
    assert folded.replace("\\\n", "").split() == line.split()
    assert fold("│ " + "x" * 90, 60) == "│ " + "x" * 90


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
        (("prepare", "--dataset", "globo", "--source", "x"), "--out is missing"),
        (("prepare", "--dataset", "drift", "--check"), "there is nothing to check"),
        (("prepare", "--dataset", "globo", "--source", "nowhere", "--out", "y"), "nowhere"),
        (
            ("prepare", "--dataset", "globo", "--source", "foo://b/x", "--out", "y"),
            "foo://b/x: there is no st",
        ),
        (("prepare", "--dataset", "globo", "--source", "s3://b/x", "--out", "y"), "'diet-ray[s3]'"),
        (("distill", "--data", "gs://b/x", "--run", "y"), "gs://b/x: the driver for gs://"),
        (("distill", "--data", "x", "--run", "y", "--width", "8"), "--width is now called --dim"),
        (("distill", "--data", "x", "--run", "y", "--reference.beside=dcn"), "called --reference.ensemble"),
        (("stream", "--method.boundary.no-carry"), "is now called --method.boundary.realign"),
        (("distill", "--data", "file.txt", "--run", "y"), "file.txt"),
        (("prepare", "--dataset", "drift", "--out", "file.txt/out"), "file.txt"),
        (("prepare", "--dataset", "drift", "--out", "file.txt"), "file.txt: Not a directory"),
        (("prepare", "--dataset", "drift", "--out", "/proc/nowhere"), "cannot use /proc/nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_without_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    monkeypatch.setattr("actors.connection.connect", lambda: pytest.fail("Ray was started for a mistake"))
    assert run(monkeypatch, *words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error:") and message in printed and "Traceback" not in printed
    assert printed.count("\n") == 1


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


IMPORTED = """
import sys
from pipelines import cli
for command in cli.COMMANDS:
    try:
        cli.main([command, "--help"])
    except SystemExit as ended:
        assert not ended.code
    print("imported by", command, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
import pipelines.inspection, pipelines.rollback, pipelines.status, pipelines.verify
print("looking", *{"torch", "ray"}.intersection(sys.modules), file=sys.stderr)
"""
SLOW = {"torch", "ray", "pandas", "numpy", "scipy", "sklearn", "altair", "pyarrow", "fsspec"}


def test_help_imports_nothing_that_takes_seconds() -> None:
    """What `--help` waits for are its imports; options live in modules of their own (pipelines/options)."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    lines = [line.split()[2:] for line in done.stderr.splitlines() if line.startswith("imported by")]
    assert [command for command, *_ in lines] == list(cli.COMMANDS)
    for command, *names in lines:
        assert not SLOW.intersection(names), command
    # Commands that only look at a run's records wait for neither PyTorch nor Ray.
    assert done.stderr.splitlines()[-1].split() == ["looking"]


def test_the_commands_are_listed_with_the_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in cli.COMMANDS)
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"diet-ray {diet_ray.__version__}\n"


@pytest.mark.parametrize("words", [(), ("destil",), ("--log-level", "loud", "status", "x"), ("--log-level",)])
def test_what_is_no_command_ends_with_two(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    assert run(monkeypatch, *words) == 2


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("warning", False)])
def test_the_log_level_is_that_of_our_modules(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: str, shown: bool
) -> None:
    """In debug, a mistake shows where it was raised."""
    assert run(monkeypatch, "--log-level", level, "status", "nowhere") == 2
    assert ("the error was raised here" in caplog.text) == shown
    assert not logging.getLogger("fsspec").isEnabledFor(logging.INFO)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            PermissionError(13, "Permission denied", "/data/log.csv"),
            "cannot use /data/log.csv: Permission denied",
        ),
        (
            OSError(28, "No space left on device", b"/data/out"),
            "/data/out: No space left on device",
        ),
        (OSError("the server has gone\nand more"), "OSError: the server has gone"),
        (ConfigError("ratio: too large"), "ratio: too large"),
        (type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})("no key"), "no key"),
        (KeyError("a bug"), None),
        (ValueError("a bug"), None),
    ],
)
def test_a_users_or_systems_error_has_a_sentence_and_a_bug_none(error: Exception, says: str | None) -> None:
    said = mistake(error)
    assert said is None if says is None else said is not None and said.endswith(says)


def test_an_interrupt_says_what_is_kept_and_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    def search() -> None:
        with keeping(lambda: "2 of 5 trials are kept", "--resume"):
            raise KeyboardInterrupt

    assert guarded(search, "diet-ray search --run 'my runs/x'") == 130
    said = "interrupted; 2 of 5 trials are kept; resume with: diet-ray search --run 'my runs/x' --resume\n"
    assert capsys.readouterr().err == said
    assert guarded(search, "diet-ray search --run x --resume") == 130
    assert capsys.readouterr().err.endswith("diet-ray search --run x --resume\n")

    def inspect() -> None:
        raise KeyboardInterrupt

    assert guarded(inspect, "diet-ray inspect x") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_has_gone_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    words = [
        sys.executable,
        "-c",
        "from pipelines.runtime.command import *; guarded(lambda: [print() for _ in range(10**6)] and 0)",
    ]
    done = subprocess.run(["bash", "-c", '"$@" | head -1', "-", *words], capture_output=True, text=True)
    assert done.stderr == ""


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    say_next("distill", "--data", "my log", "--run", "runs/x")
    assert capsys.readouterr().err == "next: diet-ray distill --data 'my log' --run runs/x\n"


def test_an_option_is_found_in_both_its_forms() -> None:
    assert option("--config", ["--data", "x", "--config", "globo"]) == "globo"
    assert option("--config", ["--config=globo", "--data", "x"]) == "globo"
    assert option("--config", ["--data", "x"]) is None
    assert option("--config", []) is None


def test_inspect_shows_stages_survival_and_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_dir: str
) -> None:
    assert run(monkeypatch, "inspect", run_dir) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("3 stages", "Stages", "Surviving rows", "is_click+long_view"))


def test_inspect_prints_records_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_dir: str
) -> None:
    assert run(monkeypatch, "inspect", run_dir, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["stage"] for record in records] == [1, 2, 3]


def next_commands() -> list[list[str]]:
    """The words of each `say_next` in pipelines/ that stand there as text: the command and its options."""
    found = []
    for file in Path(cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say_next":
                found.append([word.value for word in node.args if isinstance(word, ast.Constant)])
    return found


def test_the_next_commands_exist_with_their_options() -> None:
    told = {name: words for name, *words in next_commands()}
    assert {"distill", "evaluate", "search", "train", "predict", "report"} <= told.keys()
    for name in told:
        command = cli.COMMANDS[name]
        class_ = getattr(import_module(f"pipelines.options.{command.module}"), command.name)
        fields = {field.name for field in dataclasses.fields(class_)}
        assert {word.removeprefix("--") for word in told[name] if word.startswith("--")} <= fields

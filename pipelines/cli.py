"""The console command `diet-ray`: finds the command's class and runs it, importing nothing else."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from diet_ray import __version__
from pipelines.runtime.command import guarded, log_to_stderr, run_command

ABOUT = "Streaming dataset distillation for recommender models, on Ray."
LOG_LEVELS = ("debug", "info", "warning", "error")


class Command(NamedTuple):
    """Where the options of a command are, and its line in the list of commands."""

    module: str  # of pipelines.options
    name: str  # of its class
    summary: str


COMMANDS = {
    "prepare": Command("prepare", "Prepare", "Encode a raw log into the blocks of its schema."),
    "distill": Command("distill", "Distill", "Distill a prepared log into a memory, stage by stage."),
    "stream": Command("stream", "Stream", "Distill a log as it arrives in files or messages."),
    "status": Command("status", "Status", "Show the state of a stream."),
    "evaluate": Command("evaluate", "Evaluate", "Compare what candidates learn from a memory."),
    "search": Command("search", "Search", "Search candidate architectures on a memory."),
    "train": Command("train", "Train", "Train a candidate and export it."),
    "predict": Command("predict", "Predict", "Score raw rows with an exported model."),
    "serve": Command("predict", "Serve", "Answer rows with an exported model's scores over HTTP."),
    "truth": Command("truth", "Truth", "Train candidates fully, to hold a search against."),
    "judge": Command("judge", "Judge", "Hold cheap judges against full training."),
    "study": Command("study", "Study", "Run one of the paper's studies."),
    "report": Command("report", "Report", "Write a page about a run."),
    "verify": Command("verify", "Verify", "Check every file of a run against its record."),
    "rollback": Command("rollback", "Rollback", "Take a run back to an earlier stage."),
    "inspect": Command("inspection", "Inspect", "Show the stages and the memory of a run."),
}


def main(argv: Sequence[str] | None = None) -> None:
    sys.exit(_run(list(sys.argv[1:] if argv is None else argv)))


def _run(words: list[str]) -> int:
    given = _parser().parse_args(words)
    log_to_stderr(given.log_level)
    command = COMMANDS[given.command]

    def run() -> int:
        class_ = getattr(import_module(f"pipelines.options.{command.module}"), command.name)
        defaults = getattr(class_, "defaults", None)
        return run_command(class_, f"diet-ray {given.command}", defaults, given.arguments)

    return guarded(run)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    listed = "\n".join(f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="diet-ray",
        description=ABOUT,
        epilog=f"commands:\n{listed}\n\n`diet-ray COMMAND --help` shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"diet-ray {__version__}")
    parser.add_argument(
        "--log-level", choices=LOG_LEVELS, default="warning", help="log messages to show (default: warning)"
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    return parser


if __name__ == "__main__":
    main()

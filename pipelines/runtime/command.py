"""How a command is read and run: arguments by tyro; a user's mistake is one message and exit code 2."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from pydantic import ValidationError

from diet_ray.errors import DietError
from diet_ray.strict import config_error
from pipelines.runtime.progress import console

MISTAKE = 2
INTERRUPTED = 130


def run_command(command: Any, prog: str, default: Callable[[], Any] | None = None) -> int:
    """Build `command` from the arguments and call it; return the exit code."""

    def work() -> None:
        given = {"default": default()} if default else {}
        tyro.cli(command, prog=prog, **given)()

    return guarded(work)


def guarded(work: Callable[[], Any]) -> int:
    """Run `work`; a mistake of the user becomes a message and an exit code, a bug keeps its traceback."""
    try:
        work()
    except DietError as mistake:
        return _say(str(mistake))
    except ValidationError as wrong:
        return _say(str(config_error(wrong, "the command line")))
    except KeyboardInterrupt:
        console.print("interrupted; what was committed stays, start again to go on")
        return INTERRUPTED
    return 0


def option(name: str, argv: Sequence[str] | None = None) -> str | None:
    """The value of an option that decides the defaults of the others, before all are read."""
    words = list(sys.argv[1:] if argv is None else argv)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def _say(message: str) -> int:
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False, soft_wrap=True)
    return MISTAKE

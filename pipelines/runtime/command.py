"""How a command is read and run: arguments by tyro; a user's mistake is one message and exit code 2."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import zip_longest
from typing import Any

import tyro
from pydantic import ValidationError

from diet_ray.errors import ConfigError, DietError
from diet_ray.stored_config import RENAMED_KEYS
from diet_ray.strict import config_error
from pipelines.runtime.help_text import folded
from pipelines.runtime.progress import console

MISTAKE = 2
INTERRUPTED = 130
CLOSED_PIPE = 141  # as shells report a reader that has gone (`diet-ray inspect RUN | head`)
PACKAGES = ("diet_ray", "actors", "pipelines", "tune_spaces")
# Modules of fsspec's drivers and their clients; some of their errors are no OSError.
STORAGE_DRIVERS = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs")

logger = logging.getLogger(__name__)


def run_command(
    command: Any, prog: str, default: Callable[[], Any] | None = None, args: Sequence[str] | None = None
) -> int:
    """Build `command` from the arguments and call it; return the exit code.

    Args:
        command: the class whose fields are the options.
        prog: the command as a user types it.
        default: makes the instance that holds the defaults, from the command line and its recipe.
        args: the words after the command; those of the process where left out.
    """
    words = list(sys.argv[1:] if args is None else args)

    def work() -> None:
        given = {}
        if default:
            refuse_renamed(words)
            given = {"default": default()}
        with folded() if {"-h", "--help"} & set(words) else nullcontext():
            called = tyro.cli(command, prog=prog, args=words, **given)
        called()

    return guarded(work, shlex.join([*prog.split(), *words]))


def say_next(*words: str) -> None:
    """Print the command that comes next, as it can be pasted into a shell."""
    console.print(f"next: {shlex.join(('diet-ray', *words))}", markup=False)


@contextmanager
def keeping(what: Callable[[], str], *more: str) -> Iterator[None]:
    """Say what is kept where the user interrupts what runs inside.

    Args:
        what: a clause such as "finished cells are kept".
        more: words to add to the command that resumes.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what(), *more) from None


def guarded(work: Callable[[], int | None], command: str = "") -> int:
    """The exit code of `work`: a user's mistake becomes a message and code 2, a bug keeps its traceback.

    command: as it was typed, to say what resumes after an interrupt.
    """
    try:
        return work() or 0
    except KeyboardInterrupt as interrupt:
        kept, *more = map(str, interrupt.args or ("",))
        words = " ".join([command, *(word for word in more if word not in command)])
        resume = f"; {kept}; resume with: {words}" if kept else ""
        console.print(f"interrupted{resume}", markup=False)
        return INTERRUPTED
    except BrokenPipeError:
        # What Python still holds for standard output would raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except Exception as error:
        message = mistake(error)
        if message is None:
            raise
        logger.debug("the error was raised here:", exc_info=error)
        console.print("error:", style="bold red", end=" ")
        console.print(message, markup=False, soft_wrap=True)
        return MISTAKE


def mistake(error: Exception) -> str | None:
    """What to say of an error that the user or the system caused; None for a bug."""
    if isinstance(error, DietError):
        return str(error)
    if isinstance(error, ValidationError):
        return str(config_error(error, "the command line"))
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"cannot use {_text(error.filename)}: {error.strerror}"
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in STORAGE_DRIVERS:
        return f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".partition("\n")[0]
    return None


def _text(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, bytes | str | os.PathLike) else f"file descriptor {name}"


def refuse_renamed(words: Sequence[str]) -> None:
    """ConfigError where an option has the name of an earlier version, with the name it has now."""
    for word in words:
        if word == "--":
            return
        parts = word.partition("=")[0].removeprefix("--").replace("-", "_").split(".")
        parts[-1] = parts[-1].removeprefix("no_")  # a switch that is off
        new = RENAMED_KEYS.get(".".join(parts)) if word.startswith("--") else None
        if new:
            option_now = ".".join([*parts[:-1], new])
            raise ConfigError(f"{word.partition('=')[0]} is now called --{option_now}")


def option(name: str, argv: Sequence[str] | None = None) -> str | None:
    """The value of an option that decides the defaults of the others, before all are read."""
    words = list(sys.argv[1:] if argv is None else argv)
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def log_to_stderr(level: str) -> None:
    """Show what the modules of this package log from `level` (debug, info, warning, error) on."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())

"""The help of a command within the width of a terminal.

Tyro wraps the boxes of options, and prints the description of a command in lines as long as its paragraphs.
"""

import io
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

INDENT = "      "  # of the second line of an example


@contextmanager
def folded() -> Iterator[None]:
    """Fold the lines of prose and the examples that are printed on standard output inside."""
    out = _Buffer(sys.stdout.isatty())
    try:
        with redirect_stdout(out):
            yield
    finally:
        width = min(shutil.get_terminal_size().columns, 110)
        sys.stdout.write("".join(fold(line, width) + "\n" for line in out.getvalue().splitlines()))


class _Buffer(io.StringIO):
    """Keeps the colours that a terminal would get."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def fold(line: str, width: int) -> str:
    """A line of prose or an example in lines of at most `width`; other lines, as of a box, as they are."""
    if len(line) <= width or not (line[0].isalpha() or line.startswith("$ ")):
        return line
    if not line.startswith("$ "):
        return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    lines = [""]
    for part in line.replace(" --", "\n--").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) + 3 > width:
            lines[-1] += " \\"
            lines.append(INDENT + part)
        else:
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return "\n".join(lines)

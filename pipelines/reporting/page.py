"""One self-contained HTML page: sections of text, tables and charts; nothing is fetched.

Vega-Lite draws the charts in the browser, at the width there is, with the values of a point under the
pointer; its script (0.9 MB) stands in the page. Text stays text, in the colours of the page, light or dark.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import altair as alt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

NUMBER = re.compile(r"[+-]?\d[\d.,]*( ± [\d.]+)?( %| kB| MB)?")


class Text(NamedTuple):
    line: str
    kind: Literal["text"] = "text"


class Sentence(NamedTuple):
    """The verdict; its tone is a class of the style sheet."""

    sentence: str
    tone: str
    kind: Literal["verdict"] = "verdict"


class Number(NamedTuple):
    """A figure to read from afar."""

    value: str
    label: str
    noise: str = ""


class Numbers(NamedTuple):
    numbers: tuple[Number, ...]
    kind: Literal["numbers"] = "numbers"


class Cell(NamedTuple):
    large: str
    small: str = ""


class Column(NamedTuple):
    head: str
    numeric: bool


class Table(NamedTuple):
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    kind: Literal["table"] = "table"


class Chart(NamedTuple):
    spec: dict[str, Any]
    caption: str
    kind: Literal["chart"] = "chart"


class Folded(NamedTuple):
    summary: str
    content: str
    kind: Literal["folded"] = "folded"


class Words(NamedTuple):
    words: tuple[tuple[str, str], ...]
    kind: Literal["words"] = "words"


Part = Text | Sentence | Numbers | Table | Chart | Folded | Words
Value = str | int | float | tuple[str, str]  # a pair is a large and a small line


class Section(NamedTuple):
    heading: str
    parts: Sequence[Part]


def page(title: str, about: Sequence[str], sections: Sequence[Section], footer: str) -> str:
    """The whole page; sections without parts are left out."""
    shown = [section for section in sections if section.parts]
    drawn = any(isinstance(part, Chart) for section in shown for part in section.parts)
    values = {"title": title, "about": about, "sections": shown, "footer": footer}
    return _environment().get_template("report.html").render(values, library=_library() if drawn else "")


def table(head: Sequence[str], rows: Sequence[Sequence[Value]], caption: str = "") -> Iterator[Table]:
    """A table; nothing without rows. A column is of numbers where all that stands in it are."""
    if not rows:
        return
    cells = [tuple(_cell(value) for value in row) for row in rows]
    numeric = [all(_is_number(cell.large) for cell in column) for column in zip(*cells, strict=True)]
    columns = tuple(Column(word, number) for word, number in zip(head, numeric, strict=True))
    yield Table(columns, tuple(cells), caption)


def chart(drawn: alt.Chart | alt.LayerChart, caption: str) -> Chart:
    return Chart(drawn.to_dict(validate=False), caption)  # its parts were checked as they were made


def _cell(value: Value) -> Cell:
    if isinstance(value, tuple):
        return Cell(*value)
    return Cell(value if isinstance(value, str) else f"{value:,}")


def _is_number(text: str) -> bool:
    """Numbers and empty cells stand on the right."""
    return not text or NUMBER.fullmatch(text) is not None


@cache
def _environment() -> Environment:
    loader = PackageLoader("pipelines.reporting")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["code"] = _code
    return environment


def _code(line: str) -> Markup:
    """Escaped, with `commands` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(line))))


@cache
def _library() -> Markup:
    """The scripts of Vega, Vega-Lite and Vega-Embed as one; takes seconds to bundle."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    return Markup(bundle.replace("</script", "<\\/script"))

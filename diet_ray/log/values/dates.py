"""Times that are written out: ISO 8601 and close relatives, and dates that can be read in two ways."""

import re
from calendar import month_name
from datetime import datetime

import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.values.numbers import decimal_of

# Year first, so that there is one reading only: 2021-1-5, 2021/01/05 9:30.
YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:[Tt ]\s*(\d{1,2})(:.*))?", re.ASCII)
ISO = re.compile(r"(\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(-?\d)?)([Tt ].*)?", re.ASCII)
YEAR_LAST = re.compile(
    r"\s*(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})(?!\d)(\s+\d{1,2}:\d{2}(:\d{2})?)?", re.ASCII
)
UTC_NAME = re.compile(r"\s*(UTC|GMT|[zZ])$")
SPACED_OFFSET = re.compile(r"\s+([+-]\d\d(:?\d\d)?)$", re.ASCII)

NUMBERS = "{path}, column {column} holds numbers: set time.unit to s, ms, us, ns or mmdd, or set time.format"

# Directives of strptime with a fixed place among the digits of ISO 8601.
DIGITS = {"%Y": r"(\d{4})", **dict.fromkeys(("%m", "%d", "%H", "%M", "%S"), r"(\d{2})")}
ORDER = ("%Y", "%m", "%d", "%H", "%M", "%S")


def iso_moment(text: str) -> datetime | None:
    """The time that a text is in ISO 8601, with or without an offset; None where it is none."""
    text = text.strip()
    if UTC_NAME.search(text):
        text = UTC_NAME.sub("+00:00", text)
    text = SPACED_OFFSET.sub(r"\1", text)
    if (parts := YEAR_FIRST.fullmatch(text)) is not None:
        year, _, month, day, hour, rest = parts.groups()
        text = f"{year}-{month:0>2}-{day:0>2}" + (f"T{hour:0>2}{rest}" if hour else "")
    if not ISO.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment.utcoffset()
        return moment
    except ValueError:
        return None


def check_readings(texts: pa.Array, column: str, path: str) -> None:
    """Raise DataError where a column without one time of ISO 8601 has numbers, or dates like 05/01/2021."""
    for text in texts.drop_null().unique().to_pylist():
        if decimal_of(text) is not None:
            raise DataError(NUMBERS.format(path=path, column=column))
        if (readings := readings_of(text)) is not None:
            raise DataError(f"{path}, column {column}: {readings}; set time.format in the schema")


def readings_of(text: str) -> str | None:
    """How a date that does not begin with its year can be read; None where a text is no such date."""
    if (parts := YEAR_LAST.match(text)) is None:
        return None
    first, mark, second, year, clock, seconds = parts.groups()
    rest = (" %H:%M" + (":%S" if seconds else "")) if clock else ""
    form = "%Y" if len(year) == 4 else "%y"
    day_first, month_first = f"%d{mark}%m{mark}{form}{rest}", f"%m{mark}%d{mark}{form}{rest}"
    a, b = int(first), int(second)
    if 1 <= a <= 12 and 1 <= b <= 12:
        return (
            f"{text!r} can be read in two ways, {a} {month_name[b]} ({day_first!r}) or "
            f"{b} {month_name[a]} ({month_first!r})"
        )
    likely = day_first if b <= 12 else month_first
    return f"{text!r} is not ISO 8601 (it may be {likely!r})"


def simple_format(form: str) -> tuple[str, str] | None:
    """A format of digits as a pattern and its replacement in ISO 8601; None where it has other parts."""
    parts = re.findall(r"%.|[^%]+", form)
    named = [part for part in parts if part.startswith("%")]
    if sorted(named) != sorted(ORDER[: len(named)]) or len(named) < 3 or set(named) - DIGITS.keys():
        return None
    if len(named) == 4:  # an hour alone
        return None
    pattern = "".join(DIGITS.get(part, _escaped(part)) for part in parts)
    place = {part: rf"\{named.index(part) + 1}" for part in named}
    iso = "-".join(place[part] for part in ORDER[:3])
    clock = ":".join(place[part] for part in ORDER[3 : len(named)])
    return f"^{pattern}$", f"{iso} {clock}".rstrip()


def _escaped(text: str) -> str:
    """Literal text of a pattern of RE2, which does not know every escape of Python."""
    return re.sub(r"([.^$*+?()\[\]{}|\\])", r"\\\1", text)

"""What a log schema declares of columns, files and tables; the parts of `schema.LogSchema`."""

import codecs
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from diet_ray.log.values.clock import check_zone
from diet_ray.strict import Strict

# What version 0.1.0 stored for a schema that gave no patterns.
FIRST_DEFAULT = ("*.parquet", "*.csv", "*.csv.gz", "*.tsv", "*.tsv.gz")


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("YAML reads a bare yes, no, on, off, true or false as a boolean; give a number")
    return value


def _date_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, date) else value


Number = Annotated[int | Annotated[float, Field(allow_inf_nan=False)], BeforeValidator(_no_boolean)]
Scalar = Annotated[
    bool | int | Annotated[float, Field(allow_inf_nan=False)] | str, BeforeValidator(_date_as_text)
]


class TimeConfig(Strict):
    """The time column and how to read it."""

    column: str
    unit: Literal["timestamp", "s", "ms", "us", "ns", "mmdd"] = "timestamp"
    zone: str = "UTC"  # of boundaries, of timestamps without an offset, and of hour and weekday
    year: int | None = None  # of unit mmdd, month and day as one number
    format: str | None = None  # of text that is not ISO 8601, as strptime has it: "%d/%m/%Y %H:%M"

    @model_validator(mode="after")
    def _readable(self) -> "TimeConfig":
        if (self.unit == "mmdd") != (self.year is not None):
            raise ValueError("year belongs to unit mmdd and is needed there")
        if self.format is not None:
            if self.unit != "timestamp":
                raise ValueError(f"format belongs to unit timestamp, not to {self.unit}")
            _check_format(self.format)
        check_zone(self.zone)
        return self


def _check_format(form: str) -> None:
    moment = datetime(2021, 12, 31, 23, 59, 58, tzinfo=UTC)
    try:
        again = datetime.strptime(moment.strftime(form), form)
    except (ValueError, re.error) as wrong:
        raise ValueError(f"format {form!r} is not one of strptime: {wrong}") from wrong
    if (again.year, again.month, again.day) != (moment.year, moment.month, moment.day):
        raise ValueError(f"format {form!r} leaves out the year, the month or the day")


class Condition(Strict):
    """A test of one column; exactly one of the three."""

    at_least: Number | None = None
    at_most: Number | None = None
    equals: Scalar | None = None  # by value: 5 is 5.0, yes is true; text in quotation marks is text

    @model_validator(mode="after")
    def _one_test(self) -> "Condition":
        if sum(test is not None for test in (self.at_least, self.at_most, self.equals)) != 1:
            raise ValueError("give exactly one of at_least, at_most, equals")
        return self


class RowFilter(Condition):
    """Rows that do not pass, or have no value there, are left out of the log."""

    column: str


class FieldConfig(Strict):
    """A categorical field: a column as it is, capped, or a part of the time."""

    name: str
    source: str = Field(alias="from")
    part: Literal["hour", "weekday"] | None = Field(None, alias="as")
    at_most: int | None = None  # larger values count as this one

    @model_validator(mode="before")
    @classmethod
    def _own_column(cls, value: Any) -> Any:
        return {"from": value.get("name"), **value} if isinstance(value, Mapping) else value


class TaskConfig(Strict):
    """A binary task: a column of 0 and 1, or a test of any column."""

    name: str
    source: str = Field(alias="from")
    at_least: Number | None = None
    equals: Scalar | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_column(cls, value: Any) -> Any:
        return {"from": value.get("name"), **value} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _one_test(self) -> "TaskConfig":
        if self.at_least is not None and self.equals is not None:
            raise ValueError("give at_least or equals, not both")
        return self

    @property
    def condition(self) -> Condition | None:
        """The test that makes the label; None where the column holds it."""
        if self.at_least is None and self.equals is None:
            return None
        return Condition(at_least=self.at_least, equals=self.equals)


def _separator(value: Any) -> Any:
    """YAML leaves '\\t' in single quotation marks as two characters."""
    if isinstance(value, str) and re.fullmatch(r"\\(t|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})", value):
        value = codecs.decode(value, "unicode_escape")
    if isinstance(value, str) and (not value or re.search(r"[\r\n\"]", value)):
        raise ValueError("a separator is one or more characters, without line breaks and quotation marks")
    return "auto" if value is None else value


def _quote(value: Any) -> Any:
    value = "none" if value in (None, "", False) else value
    if value not in ("auto", "none") and not (
        isinstance(value, str) and len(value) == 1 and value.isascii() and value.isprintable()
    ):
        raise ValueError("give one character, or none where quotation marks mean nothing")
    return value


def _patterns(value: Any) -> Any:
    return (
        "auto"
        if value is None or (isinstance(value, list | tuple) and tuple(value) == FIRST_DEFAULT)
        else value
    )


class FilesConfig(Strict):
    """Which files of the source hold rows, and how to read the delimited text among them."""

    # auto: every format that can be read, by its ending; JSON named *.json only where there is nothing else.
    patterns: Annotated[
        Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1)], BeforeValidator(_patterns)
    ] = "auto"
    separator: Annotated[str, BeforeValidator(_separator)] = "auto"  # a tab for .tsv, else a comma
    columns: tuple[str, ...] | None = None  # names, where the text files have no header
    # Encloses cells. none: a quotation mark is a character like any other. auto: '"', but a cell of several
    # lines is malformed where they look like rows of their own, and always where tabs separate the cells.
    quote: Annotated[str, BeforeValidator(_quote)] = "auto"

    @model_validator(mode="after")
    def _readable(self) -> "FilesConfig":
        if (
            len(self.separator.encode()) > 1
            and self.separator != "auto"
            and self.quote not in ("auto", "none")
        ):
            raise ValueError("files.quote does not go with a files.separator of several characters")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
            raise ValueError(f"files.columns names {', '.join(twice)} twice")
        return self


class SideTable(Strict):
    """A table that adds columns to each row by a key.

    Rows without a match get missing values; of several rows with one key the first counts. A column that the
    log itself has is the log's.
    """

    files: str  # pattern
    on: str

    @model_validator(mode="before")
    @classmethod
    def _bare_on(cls, value: Any) -> Any:
        """YAML reads a bare `on` as true."""
        return (
            {"on" if k is True else k: v for k, v in value.items()} if isinstance(value, Mapping) else value
        )


class VocabularyConfig(Strict):
    """Ids seen at least `min_count` times within one block get a row of their own, forever.

    Above 1 the out-of-vocabulary row learns from rows whose ids are rare in their block. Where rarity gives
    the label away (a user with one click has no next click), that is a leak: prefer 1 there, or hashing.
    """

    kind: Literal["vocabulary"] = "vocabulary"
    min_count: Annotated[int, Field(ge=1)] = 1


class HashedConfig(Strict):
    """Fixed buckets, for id spaces without bound."""

    kind: Literal["hashed"]
    buckets: Annotated[int, Field(ge=1)] = 1_000_000

"""What a log looks like: its time column, fields, tasks and the blocks it is cut into."""

from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from diet_ray.errors import ConfigError
from diet_ray.strict import Strict, config_error

Scalar = int | float | str | bool


class TimeConfig(Strict):
    """Where the time of a row stands, and how to read it."""

    column: str
    unit: Literal["timestamp", "s", "ms", "us", "mmdd"] = "timestamp"
    zone: str = "UTC"  # of boundaries, of timestamps without a zone, and of hour and weekday
    year: int | None = None  # of unit mmdd, month and day as one number

    @model_validator(mode="after")
    def _readable(self) -> "TimeConfig":
        if (self.unit == "mmdd") != (self.year is not None):
            raise ValueError("year belongs to unit mmdd and is needed there")
        try:
            pd.Timestamp(0, tz=self.zone)
        except (KeyError, ValueError, OSError) as unknown:
            raise ValueError(f"there is no time zone {self.zone}") from unknown
        return self


class Condition(Strict):
    """A test of one column; exactly one of the three."""

    at_least: float | None = None
    at_most: float | None = None
    equals: Scalar | None = None

    @model_validator(mode="after")
    def _one_test(self) -> "Condition":
        if sum(test is not None for test in (self.at_least, self.at_most, self.equals)) != 1:
            raise ValueError("give exactly one of at_least, at_most, equals")
        return self


class RowFilter(Condition):
    """Rows that do not pass are left out of the log."""

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
    at_least: float | None = None
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


class FilesConfig(Strict):
    """Which files of the source hold rows, and how to read the CSV among them."""

    patterns: tuple[str, ...] = ("*.parquet", "*.csv", "*.csv.gz", "*.tsv", "*.tsv.gz")
    separator: str | None = None  # None: a tab for *.tsv, else a comma
    columns: tuple[str, ...] | None = None  # names, where the CSV has no header


class SideTable(Strict):
    """A table that adds columns to each row by a key; rows without a match get missing values."""

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

    Above 1 the out-of-vocabulary row learns from rows whose ids are rare in their block. Where rarity tells
    the label (a user with one click has no next click), that is a leak: prefer 1 there, or hashing.
    """

    kind: Literal["vocabulary"] = "vocabulary"
    min_count: Annotated[int, Field(ge=1)] = 1


class HashedConfig(Strict):
    """Fixed buckets, for id spaces without bound."""

    kind: Literal["hashed"]
    buckets: Annotated[int, Field(ge=1)] = 1_000_000


Interval = tuple[datetime, datetime]  # start inclusive, end exclusive


class EqualTime(Strict):
    """`parts` blocks of the same length."""

    start: datetime
    end: datetime
    parts: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _one_clock(self) -> "EqualTime":
        if (self.start.tzinfo is None) != (self.end.tzinfo is None):
            raise ValueError("give a time zone in both of start and end, or in neither")
        return self


class BlocksConfig(Strict):
    """The historical blocks in order, then what follows them."""

    history: Annotated[tuple[Interval, ...], Field(min_length=1)] | EqualTime
    subsequent: Interval
    validation: Interval
    test: Interval


class LogSchema(Strict):
    """One dataset, declared once; everything downstream reads it."""

    name: str
    time: TimeConfig
    fields: Annotated[
        tuple[Annotated[FieldConfig, BeforeValidator(lambda v: _named(v))], ...], Field(min_length=1)
    ]
    tasks: Annotated[
        tuple[Annotated[TaskConfig, BeforeValidator(lambda v: _named(v))], ...],
        Field(min_length=1, max_length=8),
    ]
    blocks: BlocksConfig | None = None  # a stream has none: its blocks close by rows or by time
    event_id: str | None = None  # column that names an event: the same name twice is one event (streams only)
    where: tuple[RowFilter, ...] = ()
    join: tuple[SideTable, ...] = ()
    files: FilesConfig = FilesConfig()
    encoder: Annotated[VocabularyConfig | HashedConfig, Field(discriminator="kind")] = VocabularyConfig()
    malformed: Literal["error", "quarantine"] = "error"  # what becomes of a row that cannot be read

    @model_validator(mode="after")
    def _consistent(self) -> "LogSchema":
        names = [*self.field_names, *self.task_names, "ts"]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"fields, tasks and ts share the name {', '.join(twice)}")
        for field in self.fields:
            if field.part and field.source != self.time.column:
                raise ValueError(f"field {field.name}: {field.part} is taken from {self.time.column} only")
        if self.blocks:
            _check_order(self.intervals())
        return self

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def intervals(self) -> dict[str, tuple[int, int]]:
        """Name of each block -> start (inclusive) and end (exclusive), ms since 1970 UTC, in time order."""
        if self.blocks is None:
            raise ConfigError(f"schema {self.name} has no blocks; only `diet-ray stream` can do without")
        blocks = self.blocks
        history = blocks.history
        if isinstance(history, EqualTime):
            cuts = pd.date_range(history.start, history.end, periods=history.parts + 1)
            history = tuple((a.to_pydatetime(), b.to_pydatetime()) for a, b in pairwise(cuts))
        named = {f"{number:04d}": interval for number, interval in enumerate(history, start=1)}
        after = {role: getattr(blocks, role) for role in ("subsequent", "validation", "test")}
        return {name: (self._ms(start), self._ms(end)) for name, (start, end) in {**named, **after}.items()}

    def columns(self) -> list[str]:
        """Columns of the log (or its side tables) that are read."""
        wanted = [self.time.column, *(f.source for f in self.fields), *(t.source for t in self.tasks)]
        wanted += [*(w.column for w in self.where), *([self.event_id] if self.event_id else [])]
        return list(dict.fromkeys([*wanted, *(side.on for side in self.join)]))

    def text_columns(self) -> set[str]:
        """Columns of CSV and JSON that are ids, and so text: a type guessed per file would give one id two
        identities."""
        ids = {f.source for f in self.fields if f.part is None and f.at_most is None}
        numbers = {task.source for task in self.tasks} | {test.column for test in self.where}
        return (ids | {side.on for side in self.join}) - numbers

    def plain(self) -> dict[str, Any]:
        """The schema as YAML and JSON hold it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def _ms(self, moment: datetime) -> int:
        stamp = pd.Timestamp(moment)
        stamp = stamp.tz_localize(self.time.zone) if stamp.tz is None else stamp
        return int(stamp.timestamp() * 1000)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _check_order(intervals: dict[str, tuple[int, int]]) -> None:
    for name, (start, end) in intervals.items():
        if start >= end:
            raise ValueError(f"block {name} ends at or before its start")
    for (earlier, (_, end)), (later, (start, _)) in pairwise(intervals.items()):
        if start < end:
            raise ValueError(
                f"time runs backwards: block {later} starts before block {earlier} ends; order is history, "
                "subsequent, validation, test"
            )


BUILT_IN = ("globo", "kuairand", "tmall", "taobao")


def load_schema(dataset: str) -> LogSchema:
    """Return a built-in schema by name or one from a YAML file; ConfigError names the key that is wrong."""
    path = files("diet_ray.log") / "datasets" / f"{dataset}.yaml" if dataset in BUILT_IN else Path(dataset)
    if not path.is_file():
        known = ", ".join(BUILT_IN)
        raise ConfigError(f"no dataset {dataset!r}: use one of {known}, drift, or a YAML file that exists")
    try:
        value = yaml.safe_load(path.read_text())
    except yaml.YAMLError as broken:
        raise ConfigError(f"{dataset} is not YAML: {broken}") from broken
    return parse_schema(value, dataset)


def parse_schema(value: Any, what: str) -> LogSchema:
    try:
        return LogSchema.model_validate(value)
    except ValidationError as wrong:
        raise config_error(wrong, f"log schema {what}") from wrong

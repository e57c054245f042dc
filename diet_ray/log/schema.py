"""What a log looks like: its time column, fields, tasks and the blocks it is cut into."""

from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from diet_ray.errors import ConfigError
from diet_ray.log.declaration import (
    FieldConfig,
    FilesConfig,
    HashedConfig,
    RowFilter,
    SideTable,
    TaskConfig,
    TimeConfig,
    VocabularyConfig,
)
from diet_ray.log.values.clock import moment_ms
from diet_ray.strict import Strict, config_error, read_yaml

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
    """The historical blocks in order, then those after them.

    A boundary in an hour that the clock skips is the end of the gap; in one that comes twice, the first.
    """

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
    malformed: Literal["error", "quarantine"] = "error"  # what happens to a row that cannot be read
    # Texts that mean "no value", besides the empty cell and null; NA, null and nan are ids unless listed.
    missing: Annotated[tuple[str, ...], BeforeValidator(lambda v: _texts(v))] = ()

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
            span = history.end - history.start
            cuts = [history.start + span * n / history.parts for n in range(history.parts + 1)]
            history = tuple(pairwise(cuts))
        named = {f"{number:04d}": interval for number, interval in enumerate(history, start=1)}
        after = {role: getattr(blocks, role) for role in ("subsequent", "validation", "test")}
        zone = self.time.zone
        return {
            name: (moment_ms(start, zone), moment_ms(end, zone))
            for name, (start, end) in {**named, **after}.items()
        }

    def unlabelled(self) -> "LogSchema":
        """The schema of rows that are to be scored: every row is taken, and none has labels."""
        return self.model_copy(update={"tasks": (), "where": (), "event_id": None})

    @property
    def needs_time(self) -> bool:
        """Whether rows must have a time: those of a log always, others where a field is made of it."""
        return bool(self.tasks) or any(field.part for field in self.fields)

    def columns(self) -> list[str]:
        """Columns of the log (or its side tables) that are read."""
        wanted = [self.time.column] * self.needs_time
        wanted += [*(f.source for f in self.fields), *(t.source for t in self.tasks)]
        wanted += [*(w.column for w in self.where), *([self.event_id] if self.event_id else [])]
        return list(dict.fromkeys([*wanted, *(side.on for side in self.join)]))

    def plain(self) -> dict[str, Any]:
        """The schema as YAML and JSON hold it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _named(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"YAML reads a bare yes, no, on or off as {value}; put the name in quotation marks")
    return {"name": value} if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    for text in texts:
        if text is None or isinstance(text, bool):
            raise ValueError(f"YAML reads a bare word as {text}; put the text in quotation marks")
    return tuple(text if isinstance(text, str) else str(text) for text in texts)


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
    """Return a built-in schema by name, or one from a YAML file.

    Args:
        dataset: globo, kuairand, tmall or taobao, or a YAML file (docs/guide.md).

    Returns:
        The schema.

    Raises:
        ConfigError: where there is no such schema, or a key is wrong; the message names it.

    Example:
        >>> import diet_ray
        >>> diet_ray.load_schema("globo").task_names
        ('has_next', 'has_two_more', 'next_same_cat')
    """
    path = files("diet_ray.log") / "datasets" / f"{dataset}.yaml" if dataset in BUILT_IN else Path(dataset)
    if not path.is_file():
        known = ", ".join(BUILT_IN)
        raise ConfigError(f"no dataset {dataset!r}: use one of {known}, drift, or a YAML file that exists")
    return parse_schema(read_yaml(path, f"log schema {dataset}"), dataset)


def parse_schema(value: Any, what: str) -> LogSchema:
    try:
        return LogSchema.model_validate(value)
    except ValidationError as wrong:
        raise config_error(wrong, f"log schema {what}") from wrong

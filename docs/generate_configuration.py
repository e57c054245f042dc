"""Writes docs/configuration.md from the config classes: `make docs`.

A key's description is the docstring below its field, or the comment beside or above it.
"""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from actors.placement import ResourceConfig
from diet_ray.config import CandidateConfig, FitConfig, RunConfig
from diet_ray.log.drift_config import DriftConfig
from diet_ray.log.schema import LogSchema
from diet_ray.log.stream.config import KafkaConfig, StreamConfig

WIDTH = 110
PAGE = Path(__file__).parent / "configuration.md"
Model = type[BaseModel]


class Chapter(NamedTuple):
    """One thing that is configured."""

    title: str
    about: str
    model: Model
    prefix: str = ""


class Section(NamedTuple):
    """A config class and the path of its keys; "" for the outermost."""

    path: str
    model: Model


INTRODUCTION = """\
# Configuration

Every key of every configuration, generated from the classes that check them; `make docs` writes this page. An
unknown key, a value out of range and a key that has been renamed are refused by name before any work starts.

A key is an option of the command, with dashes for underscores: `method.outer.real_rows` is
`--method.outer.real-rows 4096`. A bool is `--method.boundary.fusion` or `--method.boundary.no-fusion`; a list
is its values, `--reference.ensemble dcnv2 wukong`, and the option alone is an empty list. Keys nest in a YAML
file, and in Python they are arguments: `RunConfig(method={"outer": {"real_rows": 4096}})`.
"""

CHAPTERS = (
    Chapter(
        "Run",
        "Options of `diet-ray distill` and `diet-ray stream`, or a YAML file for `--config`; "
        "`diet_ray.RunConfig`. `RUN/config.yaml` keeps what a run was created with.",
        RunConfig,
    ),
    Chapter(
        "Resources",
        "Options of `diet-ray distill` and `diet-ray stream`, and keys of the same YAML file. The memory "
        "does not depend on them.",
        ResourceConfig,
        "resources",
    ),
    Chapter(
        "Fit",
        "Options of `diet-ray evaluate`, `search`, `train` and `study`; `diet_ray.FitConfig`.",
        FitConfig,
    ),
    Chapter(
        "Candidate",
        "A YAML file for `--candidates` and `--candidate`, as `diet-ray search` writes it (`best.yaml`); "
        "`diet_ray.CandidateConfig`. The name of an architecture stands for one with default options.",
        CandidateConfig,
    ),
    Chapter(
        "Log schema",
        "The YAML file for `--dataset` of `diet-ray prepare` and `diet-ray stream`; `diet_ray.LogSchema`. A "
        "field or a task may be the name of a column alone.",
        LogSchema,
    ),
    Chapter("Stream", "Options of `diet-ray stream`; `diet_ray.StreamConfig`.", StreamConfig, "stream"),
    Chapter("Kafka", "Options of `diet-ray stream` with a topic as its source.", KafkaConfig, "kafka"),
    Chapter("Drift", "Options of `diet-ray prepare --dataset drift`.", DriftConfig, "drift"),
)


def page() -> str:
    """The text of docs/configuration.md."""
    parts = [INTRODUCTION]
    for chapter in CHAPTERS:
        parts.append(f"## {chapter.title}\n\n{textwrap.fill(chapter.about, WIDTH)}\n")
        for number, section in enumerate(sections(Section(chapter.prefix, chapter.model))):
            heading = f"### {heading_of(section)}\n\n" if number else ""
            parts.append(f"{heading}{about(section.model)}\n\n{table(section)}\n")
    return "\n".join(parts)


def sections(outer: Section) -> Iterator[Section]:
    """A config class and those nested in it, each once, in the order of their keys."""
    yield outer
    for name, field in outer.model.model_fields.items():
        for path, model in nested(field.annotation, key_path(outer.path, name, field)):
            yield from sections(Section(path, model))


def nested(annotation: Any, path: str) -> Iterator[tuple[str, Model]]:
    """The config classes in a type, with the path of their keys."""
    if is_model(annotation):
        yield path, annotation
    inside = f"{path}[]" if get_origin(annotation) is tuple else path
    for argument in get_args(annotation):
        yield from nested(argument, inside)


def table(section: Section) -> str:
    """A row per key: key, type, default, description."""
    rows = ["| key | type | default | description |", "|---|---|---|---|"]
    comments = field_comments(section.model)
    for name, field in section.model.model_fields.items():
        key = f"`{key_path(section.path, name, field)}`"
        kind = type_text(field.annotation, tuple(field.metadata))
        what = " ".join((field.description or comments.get(name, "")).split())
        cells = (key, kind, default_text(field), what)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def key_path(path: str, name: str, field: FieldInfo) -> str:
    return ".".join(part for part in (path, field.alias or name) if part)


def heading_of(section: Section) -> str:
    """The path of the keys; with its kind where a key takes one of several classes."""
    kind = section.model.model_fields.get("kind")
    return f"`{section.path}`" + (f", kind {get_args(kind.annotation)[0]}" if kind else "")


def about(model: Model) -> str:
    """What the docstring of a class says before its Args, Raises or Example."""
    text = inspect.getdoc(model) or ""
    return re.split(r"\n(?:Args|Raises|Example|Returns):\n", text)[0].strip()


def type_text(annotation: Any, limits: tuple[Any, ...] = ()) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0], (*arguments[1:], *limits))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_text(argument) for argument in arguments))
    if origin is tuple:
        if arguments[-1] is not Ellipsis:
            return f"[{', '.join(type_text(argument) for argument in arguments)}]"
        length = limits_text(limits)
        return f"list of {type_text(arguments[0])}" + (f" ({length})" if length else "")
    if is_model(annotation):
        return "section"
    names = {bool: "bool", int: "int", float: "float", str: "text", datetime: "time", NoneType: "null"}
    name = names.get(annotation, "mapping" if origin is dict else "any")
    return " ".join(part for part in (name, limits_text(limits)) if part)


def limits_text(limits: tuple[Any, ...]) -> str:
    """Bounds of a number or of a length in words."""
    parts = []
    for limit in flat(limits):
        match limit:
            case Gt():
                parts.append(f"> {limit.gt:g}")
            case Ge():
                parts.append(f"≥ {limit.ge:g}")
            case Le():
                parts.append(f"≤ {limit.le:g}")
            case MinLen():
                parts.append(f"at least {limit.min_length}")
            case MaxLen():
                parts.append(f"at most {limit.max_length}")
    return ", ".join(parts)


def flat(limits: tuple[Any, ...]) -> Iterator[Any]:
    for limit in limits:
        yield from limit.metadata if isinstance(limit, FieldInfo) else (limit,)


def default_text(field: FieldInfo) -> str:
    """A default as YAML writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return f"`{text}`"


def field_comments(model: Model) -> dict[str, str]:
    """Comments of a class's fields: those beside a field, or on the lines above it."""
    source = textwrap.dedent(inspect.getsource(model))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    at_line = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    lines, comments = source.splitlines(), {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while lines[first - 2].lstrip().startswith("#"):
                first -= 1
            found = [at_line[line] for line in range(first, (node.end_lineno or 0) + 1) if line in at_line]
            comments[node.target.id] = " ".join(found)
    return comments


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

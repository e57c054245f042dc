"""Base class of every configuration a user writes, and how its YAML files are read."""

import math
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from diet_ray.errors import ConfigError


def _nan_for_null(value: Any) -> Any:
    return math.nan if value is None else value


NullableFloat = Annotated[float, BeforeValidator(_nan_for_null)]
"""A number that is null in JSON where it is NaN."""


class Strict(BaseModel):
    """Frozen; an unknown key is an error. The docstring below a field is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )


def config_error(error: ValidationError, what: str) -> ConfigError:
    """Turn a validation error into one line per key, with the value that was given.

    Args:
        error: what pydantic raised.
        what: the thing that was validated, e.g. "config my.yaml"; the message starts with it.
    """
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("function-"))
        given = f" (got {problem['input']!r})" if key and problem["type"] != "missing" else ""
        lines.append(f"  {key or what}: {problem['msg'].removeprefix('Value error, ')}{given}")
    return ConfigError(f"{what} is not valid:\n" + "\n".join(lines))


def read_yaml(file: Path | Traversable, what: str) -> Any:
    """The content of a YAML file; ConfigError names `what` and the line where it is not UTF-8 or not YAML."""
    content = file.read_bytes()
    try:
        return yaml.safe_load(content.decode("utf-8-sig"))
    except UnicodeDecodeError as wrong:
        number = content[: wrong.start].count(b"\n") + 1
        raise ConfigError(f"{what} is not UTF-8 (line {number}); save it in that encoding") from wrong
    except yaml.MarkedYAMLError as broken:
        line = f"line {broken.problem_mark.line + 1}: " if broken.problem_mark else ""
        raise ConfigError(f"{what} is not YAML: {line}{broken.problem}") from broken
    except (yaml.YAMLError, ValueError, RecursionError) as broken:  # a date that is none is a ValueError
        raise ConfigError(f"{what} is not YAML: {broken}") from broken


def differences(
    stored: dict[str, Any], requested: dict[str, Any], prefix: str = "", owner: str = "run"
) -> str:
    """The keys in which two settings differ, with both values; empty where they are the same.

    Args:
        stored: the settings that something was made with.
        requested: those that a command asks for.
        prefix: put before every key.
        owner: the thing that was made, for the message.
    """
    changed = []
    for key in sorted(stored.keys() | requested.keys()):
        old, new = stored.get(key), requested.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed.append(differences(old, new, f"{prefix}{key}.", owner))
        else:
            changed.append(f"{prefix}{key}: the {owner} has {old!r}, this command asks for {new!r}")
    return "; ".join(changed)

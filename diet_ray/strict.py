"""Base class of every configuration a user writes."""

import math
from typing import Annotated, Any

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

"""The base of everything a user configures."""

from pydantic import BaseModel, ConfigDict, ValidationError

from diet_ray.errors import ConfigError


class Strict(BaseModel):
    """Frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def told(error: ValidationError, what: str) -> ConfigError:
    """The error in our words: one line per key, with the value found."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("function-"))
        found = "" if problem["type"] == "missing" else f" (found {problem['input']!r})"
        lines.append(f"  {key or what}: {problem['msg']}{found}")
    return ConfigError(f"{what} is not valid:\n" + "\n".join(lines))

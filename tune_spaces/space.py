"""What a search space is, how a candidate is drawn from it, and how one is found by name."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError
from ray.tune.search.sample import Domain

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.models.registry import HeadConfig, check_options
from diet_ray.strict import config_error

BUILT_IN = ("joint", "dcn", "dcnv2", "finalnet", "finalmlp", "wukong")


@dataclass(frozen=True)
class Space:
    """One architecture; each value is a domain of Ray Tune (`tune.choice`, `tune.randint`, `tune.loguniform`
    ...) or a constant.

    model: a name of diet_ray.models.registry.ARCHITECTURES, or `package.module:Class`.
    options: keyword arguments of the architecture.
    head: keys of HeadConfig, the multi-task head above it.
    learning_rate: of the dense part.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: Any = None

    def parameters(self) -> dict[str, Any]:
        """Every value of the space by a flat name."""
        named = {f"options.{key}": value for key, value in self.options.items()}
        named |= {f"head.{key}": value for key, value in self.head.items()}
        return named | {"learning_rate": self.learning_rate}

    def candidate(self, values: Mapping[str, Any]) -> CandidateConfig:
        """The candidate with these values, by the names of `parameters`."""

        def below(prefix: str) -> dict[str, Any]:
            return {key.removeprefix(prefix): v for key, v in values.items() if key.startswith(prefix)}

        try:
            return CandidateConfig(
                name=self.model,
                options=below("options."),
                head=below("head."),  # type: ignore[arg-type]
                learning_rate=values["learning_rate"],
            )
        except ValidationError as wrong:
            raise config_error(wrong, f"a candidate of space {self.model}") from wrong


Spaces = tuple[Space, ...]


def sample(spaces: Spaces, draw: np.random.Generator) -> CandidateConfig:
    """A random candidate: an architecture, all alike, then each of its values by the domain's own law."""
    space = spaces[int(draw.integers(len(spaces)))]
    values = {
        name: value.sample(random_state=draw) if isinstance(value, Domain) else value
        for name, value in space.parameters().items()
    }
    return space.candidate(values)


def load_space(name: str) -> Spaces:
    """A space of this package by name, or a module of the user's that has SPACE.

    Raises ConfigError where there is none, or it names an option that its architecture has not.
    """
    module = f"tune_spaces.{name}" if name in BUILT_IN else name
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look into the working directory by itself
    try:
        found = importlib.import_module(module)
    except ImportError as missing:
        raise ConfigError(
            f"no search space {name!r} ({missing}): use one of {', '.join(BUILT_IN)}, or a module with SPACE"
        ) from missing
    spaces = getattr(found, "SPACE", None)
    spaces = (spaces,) if isinstance(spaces, Space) else spaces
    if not isinstance(spaces, tuple) or not spaces or not all(isinstance(s, Space) for s in spaces):
        raise ConfigError(f"module {module} has no SPACE that is a Space or a tuple of them")
    for space in spaces:
        check_options(space.model, space.options)
        if unknown := set(space.head) - set(HeadConfig.model_fields):
            allowed = ", ".join(HeadConfig.model_fields)
            raise ConfigError(f"space {name}: unknown key head.{min(unknown)}; its keys: {allowed}")
    return spaces

"""What a search space is, how a candidate is drawn from it, and how a space is loaded by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError
from ray.tune.search.sample import Domain

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.model_config import HeadConfig
from diet_ray.models.registry import check_options
from diet_ray.models.user_code import import_module
from diet_ray.strict import config_error

BUILT_IN = ("joint", "dcn", "dcnv2", "finalnet", "finalmlp", "wukong")


@dataclass(frozen=True)
class Space:
    """One architecture; each value is a domain of Ray Tune (`tune.choice`, `tune.randint`, `tune.loguniform`
    ...) or a constant.

    >>> from ray import tune
    >>> space = Space("dcn", {"cross_layers": 2, "hidden": tune.choice([(64,), (128, 64)])})
    >>> candidate = sample((space,), np.random.default_rng(0))
    >>> candidate.name, candidate.options
    ('dcn', {'cross_layers': 2, 'hidden': (128, 64)})
    """

    model: str
    """A name of diet_ray.models.registry.ARCHITECTURES, or `package.module:Class`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the architecture."""
    head: Mapping[str, Any] = field(default_factory=dict)
    """Keys of HeadConfig, the multi-task head above it."""
    learning_rate: Any = None
    """Of the dense part; None: the default of the training."""

    def parameters(self) -> dict[str, Any]:
        """Every value of the space by a flat name: `options.KEY`, `head.KEY`, `learning_rate`."""
        named = {f"options.{key}": value for key, value in self.options.items()}
        named |= {f"head.{key}": value for key, value in self.head.items()}
        return named | {"learning_rate": self.learning_rate}

    def candidate(self, values: Mapping[str, Any]) -> CandidateConfig:
        """The candidate with these values, by the names of `parameters`.

        Raises:
            ConfigError: a value is of the wrong type or out of range.
        """
        try:
            return CandidateConfig(
                name=self.model,
                options=_section(values, "options."),
                head=HeadConfig(**_section(values, "head.")),
                learning_rate=values["learning_rate"],
            )
        except ValidationError as wrong:
            raise config_error(wrong, f"a candidate of space {self.model}") from wrong


Spaces = tuple[Space, ...]


def sample(spaces: Spaces, draw: np.random.Generator) -> CandidateConfig:
    """A random candidate: one of the architectures, with equal probability, and a value of each domain."""
    space = spaces[int(draw.integers(len(spaces)))]
    values = {
        name: value.sample(random_state=draw) if isinstance(value, Domain) else value
        for name, value in space.parameters().items()
    }
    return space.candidate(values)


def load_space(name: str) -> Spaces:
    """A space of this package by its name, or that of a module with an attribute SPACE.

    Raises:
        ConfigError: there is no such module, its import fails, or its SPACE is malformed or names an option
            that its architecture does not have.
    """
    known = ", ".join(BUILT_IN)
    if name in BUILT_IN:
        module = import_module(f"tune_spaces.{name}", f"search space {name!r}")
    elif all(part.isidentifier() for part in name.split(".")):
        module = import_module(name, f"no search space {name!r}: it is none of {known}, and as a module it")
    else:
        raise ConfigError(f"no search space {name!r}: it is none of {known}, nor the name of a module")
    spaces = getattr(module, "SPACE", None)
    spaces = (spaces,) if isinstance(spaces, Space) else spaces
    if not isinstance(spaces, tuple) or not spaces or not all(isinstance(s, Space) for s in spaces):
        raise ConfigError(f"module {module.__name__} has no SPACE that is a Space or a tuple of them")
    for space in spaces:
        check_options(space.model, space.options)
        if unknown := set(space.head) - set(HeadConfig.model_fields):
            allowed = ", ".join(HeadConfig.model_fields)
            raise ConfigError(f"space {name}: unknown key head.{min(unknown)}; its keys: {allowed}")
    return spaces


def _section(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values whose name starts with `prefix`, by the rest of the name."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}

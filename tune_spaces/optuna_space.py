"""A search space as Optuna sees it, for Tune's OptunaSearch."""

import json
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Categorical, Domain

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from tune_spaces.space import Space, Spaces

ARCHITECTURE = "architecture"

Described = Callable[[int, CandidateConfig, dict[str, Any]], dict[str, Any]]


class OptunaSpace:
    """A define-by-run space. (A class, for Tune pickles it.)"""

    def __init__(self, spaces: Spaces, described: Described) -> None:
        """`described` makes Tune's config of a trial from its number, the candidate and what was drawn.

        Raises ConfigError where Optuna has no distribution for a domain.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spaces, self.described = spaces, described
        self.laws = [_laws(space) for space in spaces]

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        which = 0
        if len(self.spaces) > 1:
            which = drawn[ARCHITECTURE] = trial.suggest_categorical(ARCHITECTURE, range(len(self.spaces)))
        values = dict(self.spaces[which].parameters())
        for name, law in self.laws[which].items():
            unique = f"{which}.{name}"  # the same option of two architectures is two parameters
            value = drawn[unique] = _suggest(trial, unique, law)
            values[name] = json.loads(value) if isinstance(law, CategoricalDistribution) else value
        return self.described(trial.number, self.spaces[which].candidate(values), drawn)


def _laws(space: Space) -> dict[str, Any]:
    return {
        name: _law(name, value) for name, value in space.parameters().items() if isinstance(value, Domain)
    }


def _law(name: str, domain: Domain) -> Any:
    if isinstance(domain, Categorical):
        # Optuna wants plain values; a tuple of layer widths is not one.
        return CategoricalDistribution([json.dumps(value) for value in domain.categories])
    try:
        return OptunaSearch.convert_search_space({name: domain})[name]
    except ValueError as unknown:
        raise ConfigError(f"--searcher optuna cannot draw {name}: {unknown}; use random") from unknown


def _suggest(trial: optuna.Trial, name: str, law: Any) -> Any:
    if isinstance(law, CategoricalDistribution):
        return trial.suggest_categorical(name, law.choices)
    if isinstance(law, FloatDistribution):
        return trial.suggest_float(name, law.low, law.high, step=law.step, log=law.log)
    assert isinstance(law, IntDistribution)
    return trial.suggest_int(name, law.low, law.high, step=law.step, log=law.log)

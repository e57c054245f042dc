"""A search space as Optuna sees it, for Tune's OptunaSearch."""

import json
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Categorical, Domain

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from tune_spaces.space import Space, Spaces

ARCHITECTURE = "architecture"

TrialConfig = Callable[[int, CandidateConfig, dict[str, Any]], dict[str, Any]]


class OptunaSpace:
    """A define-by-run space: called with a trial, it suggests values and returns Tune's config of the trial.

    A class rather than a closure, because Tune pickles it.
    """

    def __init__(self, spaces: Spaces, trial_config: TrialConfig) -> None:
        """Prepare the distributions.

        Args:
            spaces: Architectures to draw from.
            trial_config: Makes Tune's config from the trial's number, the candidate and Optuna's values.

        Raises:
            ConfigError: Optuna has no distribution for a domain.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spaces, self.trial_config = spaces, trial_config
        self.distributions = [_distributions(space) for space in spaces]

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        which = 0
        if len(self.spaces) > 1:
            which = drawn[ARCHITECTURE] = trial.suggest_categorical(ARCHITECTURE, range(len(self.spaces)))
        values = dict(self.spaces[which].parameters())
        for name, distribution in self.distributions[which].items():
            unique = f"{which}.{name}"  # the same option of two architectures is two parameters
            value = drawn[unique] = _suggest(trial, unique, distribution)
            values[name] = json.loads(value) if isinstance(distribution, CategoricalDistribution) else value
        return self.trial_config(trial.number, self.spaces[which].candidate(values), drawn)


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """The domains of a space as Optuna's distributions, by the names of `Space.parameters`."""
    domains = {name: value for name, value in space.parameters().items() if isinstance(value, Domain)}
    return {name: _distribution(name, domain) for name, domain in domains.items()}


def _distribution(name: str, domain: Domain) -> BaseDistribution:
    if isinstance(domain, Categorical):
        # Optuna wants plain values; a tuple of layer widths is not one.
        return CategoricalDistribution([json.dumps(value) for value in domain.categories])
    try:
        return OptunaSearch.convert_search_space({name: domain})[name]
    except ValueError as unknown:
        raise ConfigError(f"--searcher optuna cannot draw {name}: {unknown}; use random") from unknown


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, low=distribution.low, high=distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, IntDistribution)
    return trial.suggest_int(
        name, low=distribution.low, high=distribution.high, step=distribution.step, log=distribution.log
    )

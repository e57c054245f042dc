"""Checks of the sizes that a user may give an architecture."""

from collections.abc import Sequence

from diet_ray.errors import ConfigError


def check_counts(**counts: int) -> None:
    """Raise ConfigError naming the first option that is not a positive int."""
    for option, count in counts.items():
        if type(count) is not int or count < 1:
            raise ConfigError(f"{option} must be a positive int, not {count!r}")


def check_layers(**layers: Sequence[int]) -> None:
    """Raise ConfigError naming the first option that is not a non-empty list of positive ints."""
    for option, widths in layers.items():
        is_list = isinstance(widths, Sequence) and all(type(width) is int and width > 0 for width in widths)
        if not is_list or not widths:
            raise ConfigError(f"{option} must be a list of positive layer widths, not {widths!r}")

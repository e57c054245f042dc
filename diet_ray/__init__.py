"""Streaming dataset distillation for recommender models: the method, without Ray."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diet_ray.version import __version__

if TYPE_CHECKING:
    from diet_ray.runs.local import distill
    from diet_ray.runs.published_memory import load_memory

__all__ = ["__version__", "distill", "load_memory"]

# Loaded at first use: PyTorch takes seconds to import, and a command's --help needs none of it.
_MODULES = {"distill": "diet_ray.runs.local", "load_memory": "diet_ray.runs.published_memory"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

"""Streaming dataset distillation for recommender models: the method, without Ray."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diet_ray.runs.run import load_memory

__all__ = ["load_memory"]
__version__ = "0.1.0"

# Loaded at first use: PyTorch takes seconds, and a command's --help needs none of it.
_MODULES = {"load_memory": "diet_ray.runs.run"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

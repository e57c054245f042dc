"""Streaming dataset distillation for recommender models: the method, without Ray."""

from diet_ray.runs.local import distill
from diet_ray.runs.published_memory import load_memory
from diet_ray.version import __version__

__all__ = ["__version__", "distill", "load_memory"]

"""Streaming dataset distillation for recommender models: the method, without Ray."""

from diet_ray.runs.run import load_memory

__all__ = ["load_memory"]
__version__ = "0.1.0"

"""Streaming dataset distillation for recommender models: the method, without Ray."""

__version__ = "0.1.0"

"""Streaming dataset distillation for recommender models: the method, without Ray."""

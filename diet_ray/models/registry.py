"""Architectures by name, open to a user's own backbone by import path."""

import inspect
from collections.abc import Collection
from typing import cast

import torch
from torch import nn

from diet_ray.errors import ConfigError
from diet_ray.model_config import ModelConfig
from diet_ray.models.backbone import Architecture, build_backbone
from diet_ray.models.base import RankingModel
from diet_ray.models.dcn import DCN
from diet_ray.models.dcnv2 import DCNv2
from diet_ray.models.finalmlp import FinalMLP
from diet_ray.models.finalnet import FinalNet
from diet_ray.models.mmoe import MMoE
from diet_ray.models.user_code import import_named
from diet_ray.models.wukong import Wukong

ARCHITECTURES: dict[str, Architecture] = {
    "dcn": DCN,
    "dcnv2": DCNv2,
    "finalnet": FinalNet,
    "finalmlp": FinalMLP,
    "wukong": Wukong,
}


def build_model(config: ModelConfig, *, fields: int, dim: int, tasks: int, seed: int) -> RankingModel:
    """Build and initialise the model from `seed`; the global random state is left as it was.

    Raises:
        ConfigError: naming an unknown architecture, a misspelt option, or what is wrong with a backbone.
    """
    architecture = check_options(config.name, config.options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = build_backbone(config.name, architecture, config.options, fields=fields, dim=dim)
        return RankingModel(
            backbone, MMoE(cast(int, backbone.out_features), tasks, **config.head.model_dump())
        )


def check_options(name: str, options: Collection[str]) -> Architecture:
    """Return the architecture of a name.

    Raises:
        ConfigError: there is none, or its constructor does not take just these options.
    """
    architecture = _architecture(name)
    try:
        signature = inspect.signature(architecture)
    except ValueError as unknown:
        raise ConfigError(f"model {name} is no class of nn.Module: {unknown}") from unknown
    parameters = list(signature.parameters.values())
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        allowed = [parameter.name for parameter in parameters[2:]]
        for option in options:
            if option not in allowed:
                listed = ", ".join(allowed) or "none"
                raise ConfigError(f"model {name} has no option {option!r}; its options: {listed}")
    try:
        signature.bind("fields", "dim", **dict.fromkeys(options))
    except TypeError as wrong:
        raise ConfigError(
            f"model {name} cannot be called as Class(fields, dim, **options): {wrong}"
        ) from wrong
    return architecture


def _architecture(name: str) -> Architecture:
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if ":" not in name:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(
            f"unknown model {name!r}: use one of {known}, package.module:Class, or file.py:Class"
        )
    architecture = import_named(name, f"model {name!r}")
    if isinstance(architecture, type) and not issubclass(architecture, nn.Module):
        raise ConfigError(f"model {name} must be a class of nn.Module")
    if isinstance(architecture, nn.Module):
        raise ConfigError(f"model {name} is an instance of {type(architecture).__name__}: name its class")
    if not callable(architecture):
        raise ConfigError(f"model {name} is a {type(architecture).__name__}, not a class of nn.Module")
    return cast(Architecture, architecture)

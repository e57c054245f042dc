"""Architectures by name, open to a user's own backbone by import path."""

import importlib
import inspect
from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from pydantic import Field
from torch import nn

from diet_ray.errors import ConfigError
from diet_ray.models.base import RankingModel
from diet_ray.models.dcn import DCN
from diet_ray.models.dcnv2 import DCNv2
from diet_ray.models.finalmlp import FinalMLP
from diet_ray.models.finalnet import FinalNet
from diet_ray.models.mmoe import MMoE
from diet_ray.models.wukong import Wukong
from diet_ray.strict import Strict

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "dcn": DCN,
    "dcnv2": DCNv2,
    "finalnet": FinalNet,
    "finalmlp": FinalMLP,
    "wukong": Wukong,
}


class HeadConfig(Strict):
    """Size of the common MMoE head."""

    experts: int = 4
    expert_hidden: tuple[int, ...] = (128, 64)
    gate_hidden: tuple[int, ...] = ()
    tower_hidden: tuple[int, ...] = (64,)


class ModelConfig(Strict):
    """An architecture: a name of ARCHITECTURES or `package.module:Class`, and its keyword options.

    A class of the user's own is an nn.Module built as Class(fields, dim, **options) that has the attribute
    `out_features` and maps [N, fields, dim] to [N, out_features].
    """

    name: str = "dcn"
    options: dict[str, Any] = Field(default_factory=dict)
    head: HeadConfig = HeadConfig()


def build_model(config: ModelConfig, *, fields: int, dim: int, tasks: int, seed: int) -> RankingModel:
    """Build and initialise the model from `seed`; the global random state is left as it was.

    Raises ConfigError naming an unknown architecture, a misspelt option or a backbone of the wrong shape.
    """
    architecture = check_options(config.name, config.options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            backbone = architecture(fields, dim, **config.options)
        except (TypeError, ValueError) as wrong:
            raise ConfigError(f"model {config.name}: {wrong}") from wrong
        _check_shape(config.name, backbone, fields, dim)
        return RankingModel(
            backbone, MMoE(cast(int, backbone.out_features), tasks, **config.head.model_dump())
        )


def _architecture(name: str) -> Callable[..., nn.Module]:
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f"unknown model {name!r}: use one of {known}, or package.module:Class")
    try:
        found: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as missing:
        raise ConfigError(f"model {name!r} cannot be imported: {missing}") from missing
    return found


def check_options(name: str, options: Collection[str]) -> Callable[..., nn.Module]:
    """The architecture of a name; ConfigError where there is none, or it has not one of the options."""
    architecture = _architecture(name)
    allowed = list(inspect.signature(architecture).parameters)[2:]
    for option in options:
        if option not in allowed:
            listed = ", ".join(allowed) or "none"
            raise ConfigError(f"model {name} has no option {option!r}; its options: {listed}")
    return architecture


def _check_shape(name: str, backbone: object, fields: int, dim: int) -> None:
    if not isinstance(backbone, nn.Module) or not hasattr(backbone, "out_features"):
        raise ConfigError(f"model {name} must be an nn.Module with an attribute out_features")
    with torch.no_grad():
        found = tuple(backbone.eval()(torch.zeros(2, fields, dim)).shape)
    backbone.train()
    if found != (2, backbone.out_features):
        raise ConfigError(
            f"model {name} maps (2, {fields}, {dim}) to {found}, expected (2, {backbone.out_features})"
        )

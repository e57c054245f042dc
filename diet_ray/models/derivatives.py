"""The check that a model has the derivatives the method takes of a reference.

PyTorch has ordinary gradients for all of its layers, but not for each of them the forward-mode derivative, by
which rows are scored (influence.py), and the derivative of a gradient, by which the memory is optimised
(unroll.py).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp

from diet_ray.errors import ConfigError
from diet_ray.model_config import ModelConfig
from diet_ray.models.examples import Examples, LossPerExample, Params, dense_params, loss_of
from diet_ray.models.registry import build_model
from diet_ray.models.user_code import describe

ROWS = 2


def check_reference_model(config: ModelConfig, *, fields: int, dim: int, tasks: int) -> None:
    """Build a model and take each derivative once, on a small batch.

    Raises:
        ConfigError: the model cannot be built, or a derivative of it fails.
    """
    model = build_model(config, fields=fields, dim=dim, tasks=tasks, seed=0)
    draw = torch.Generator().manual_seed(0)
    emb_NFD = torch.randn(ROWS, fields, dim, generator=draw)
    examples = Examples(emb_NFD, torch.rand(ROWS, tasks, generator=draw))
    loss, params = loss_of(model), dense_params(model)
    checks: dict[str, Callable[[LossPerExample, Params, Examples], Tensor]] = {
        "forward-mode derivative": _forward_mode,
        "derivative of the gradient": _second_order,
    }
    for derivative, take in checks.items():
        try:
            take(loss, params, examples)
        except RuntimeError as failed:
            raise ConfigError(
                f"model {config.name} cannot be a reference, because PyTorch has no {derivative} of it: "
                f"{describe(failed)}. As a candidate it needs none"
            ) from failed


def _forward_mode(loss: LossPerExample, params: Params, examples: Examples) -> Tensor:
    with torch.no_grad():
        return jvp(lambda p: loss(p, examples), (params,), (params,))[1]


def _second_order(loss: LossPerExample, params: Params, examples: Examples) -> Tensor:
    """The gradient of a function of the gradient, in the embeddings."""
    leaves = {name: parameter.requires_grad_() for name, parameter in params.items()}
    emb_NFD = examples.emb_NFD.clone().requires_grad_()
    mean_loss = loss(leaves, examples._replace(emb_NFD=emb_NFD)).mean()
    gradients = torch.autograd.grad(
        mean_loss, list(leaves.values()), create_graph=True, materialize_grads=True
    )
    squared = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    return torch.autograd.grad(squared, emb_NFD)[0]

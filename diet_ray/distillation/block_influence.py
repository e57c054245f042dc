"""Influence of the memory on every row of a block: directions go out, alignments come back (eq. 16).

Each proxy of a stage's first addressings has a direction, the gradient of the memory's summed loss. A row's
alignment with it is the deficiency of the row under this proxy; one forward-mode pass per proxy.

Shape suffixes: N rows, P proxies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diet_ray.distillation.influence import alignment, direction
from diet_ray.models.base import DenseModel
from diet_ray.models.examples import Examples, Params, dense_params, loss_of


class ProxyDirection(NamedTuple):
    """A proxy, as whoever has its architecture can rebuild it, and its direction."""

    state: Params  # weights and buffers
    along: Params  # gradient of the summed loss, by the names of `dense_params`


def proxy_directions(proxies: Sequence[DenseModel], memory: Examples) -> list[ProxyDirection]:
    """The gradient of the memory's summed loss in the weights of each proxy."""
    directions = []
    for proxy in proxies:
        along = direction(loss_of(proxy), dense_params(proxy), memory)
        state = {name: tensor.detach().cpu() for name, tensor in proxy.state_dict().items()}
        directions.append(ProxyDirection(state, {name: part.cpu() for name, part in along.items()}))
    return directions


class BlockInfluence:
    """Alignment of rows with the direction of every proxy.

    Args:
        models: one of the architecture of each proxy; they take its weights.
        directions: one per model.
        device: where rows are.
    """

    def __init__(
        self, models: Sequence[DenseModel], directions: Sequence[ProxyDirection], device: torch.device
    ) -> None:
        self._judges = []
        for model, (state, along) in zip(models, directions, strict=True):
            model.load_state_dict(state)
            model.to(device)
            moved = {name: part.to(device) for name, part in along.items()}
            self._judges.append((loss_of(model), dense_params(model), moved))

    def __call__(self, targets: Examples) -> Tensor:
        """The derivative of each target's loss along each direction; [N, P]."""
        columns = [alignment(loss, params, targets, along) for loss, params, along in self._judges]
        return torch.stack(columns, 1)

"""Memory addressing: which real rows drive an update and which memory rows take it (eqs. 16-17).

Shape suffixes: N rows, P proxies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diet_ray.distillation.influence import CHUNK, alignment, direction, summed_influence
from diet_ray.models.base import DenseModel
from diet_ray.models.examples import Examples, LossPerExample, Params, dense_params, loss_of


def lowest(score_N: Tensor, count: int) -> Tensor:
    """Row numbers of the `count` lowest scores, ascending by score; ties go to the lower row number."""
    return score_N.sort(stable=True).indices[:count]


def hard_targets(
    loss: LossPerExample,
    params: Params,
    *,
    real: Examples,
    memory: Examples,
    ratio: float,
    weight_N: Tensor | None = None,
) -> Tensor:
    """Rows of `real` that the memory teaches least: the lowest `ratio` by deficiency (eq. 16).

    At most `ratio` of the rows come back, ascending by deficiency. With weights (how many rows of the block a
    row stands for) the lowest `ratio` is that of the block; where `real` has more of these, those that come
    first in it are taken, so it must be in random order.
    """
    deficiency_N = summed_influence(loss, params, sources=memory, targets=real)
    count = max(1, round(ratio * real.rows))
    if weight_N is None:
        return lowest(deficiency_N, count)
    order_N = lowest(deficiency_N, real.rows)
    upto_N = weight_N[order_N].double().cumsum(0) - weight_N[order_N] / 2
    hard_N = order_N[: max(1, int((upto_N <= ratio * weight_N.double().sum()).sum()))]
    return hard_N if len(hard_N) <= count else hard_N[hard_N < hard_N.sort().values[count]]


def active_memory(
    loss: LossPerExample, params: Params, *, hard: Examples, memory: Examples, count: int
) -> Tensor:
    """Rows of `memory` most responsible for the hard targets: the `count` highest (eq. 17)."""
    responsibility_N = summed_influence(loss, params, sources=hard, targets=memory)
    return lowest(-responsibility_N, count)


GPU_CHUNK = 32_768  # rows per pass over a block


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
    """Alignment of rows with the direction of every proxy: their deficiency under each (eq. 16).

    For a whole block, whose rows are elsewhere than the memory: directions go out, alignments come back.

    Args:
        models: one of the architecture of each proxy; they take its weights.
        directions: one per model.
        device: where rows are.
    """

    def __init__(
        self, models: Sequence[DenseModel], directions: Sequence[ProxyDirection], device: torch.device
    ) -> None:
        # A GPU needs long passes to be busy; on a CPU short ones stay in its caches.
        self._chunk = CHUNK if device.type == "cpu" else GPU_CHUNK
        self._judges = []
        for model, (state, along) in zip(models, directions, strict=True):
            model.load_state_dict(state)
            model.to(device)
            moved = {name: part.to(device) for name, part in along.items()}
            self._judges.append((loss_of(model), dense_params(model), moved))

    def __call__(self, targets: Examples) -> Tensor:
        """The derivative of each target's loss along each direction; [N, P]."""
        columns = [
            alignment(loss, params, targets, along, self._chunk) for loss, params, along in self._judges
        ]
        return torch.stack(columns, 1)

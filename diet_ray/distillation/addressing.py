"""Memory addressing: which real rows drive an update and which memory rows take it (eqs. 16-17).

Shape suffixes: N rows.
"""

from torch import Tensor

from diet_ray.distillation.influence import summed_influence
from diet_ray.models.examples import Examples, LossPerExample, Params


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

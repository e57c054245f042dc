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
    loss: LossPerExample, params: Params, *, real: Examples, memory: Examples, ratio: float
) -> Tensor:
    """Rows of `real` that the memory teaches least: the lowest `ratio` by deficiency (eq. 16)."""
    deficiency_N = summed_influence(loss, params, sources=memory, targets=real)
    return lowest(deficiency_N, max(1, round(ratio * real.rows)))


def active_memory(
    loss: LossPerExample, params: Params, *, hard: Examples, memory: Examples, count: int
) -> Tensor:
    """Rows of `memory` most responsible for the hard targets: the `count` highest (eq. 17)."""
    responsibility_N = summed_influence(loss, params, sources=hard, targets=memory)
    return lowest(-responsibility_N, count)

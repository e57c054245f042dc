"""First-order influence between examples (paper, eqs. 12-17).

A gradient step on example s changes the loss of example i by -lr * phi(i, s), with
phi(i, s) = <grad loss(i), grad loss(s)> over the dense parameters. Every use in the method sums over one
side, so per-example gradients are never formed: one backward pass over that side gives a direction, one
forward-mode pass over the other side the derivative of each loss along it.

Shape suffixes: N targets.
"""

import torch
from torch import Tensor
from torch.func import grad, jvp

from diet_ray.models.examples import Examples, LossPerExample, Params

# Rows per pass: bounds the activations held, not the result.
CHUNK = 4096


def direction(loss: LossPerExample, params: Params, sources: Examples, chunk: int = CHUNK) -> Params:
    """Return the gradient of the summed loss of `sources`, shaped like `params` (one backward pass)."""
    summed_gradient = grad(lambda p, rows: loss(p, rows).sum())
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for rows in sources.chunks(chunk):
        for name, part in summed_gradient(params, rows).items():
            total[name] += part
    return total


def alignment(
    loss: LossPerExample, params: Params, targets: Examples, along: Params, chunk: int = CHUNK
) -> Tensor:
    """Return the derivative of each target's loss along the direction `along`; [N] (one forward-mode pass).

    `loss` must treat examples independently: a batch norm in training mode does not.
    """
    scores = []
    for rows in targets.chunks(chunk):
        with torch.no_grad():
            scores.append(jvp(lambda p, rows=rows: loss(p, rows), (params,), (along,))[1])
    return torch.cat(scores) if scores else torch.zeros(0)


def summed_influence(
    loss: LossPerExample, params: Params, *, sources: Examples, targets: Examples, chunk: int = CHUNK
) -> Tensor:
    """Score each target by the influence it receives from all sources together; returns [N].

    phi is symmetric, so the same call gives the weight of old memory rows (eq. 10), the deficiency of real
    rows (eq. 16) and the responsibility of memory rows (eq. 17).
    """
    return alignment(loss, params, targets, direction(loss, params, sources, chunk), chunk)

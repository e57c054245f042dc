"""First-order influence between examples (paper, eqs. 12-17).

A gradient step on example s changes the loss of example i by -lr * phi(i, s), with
phi(i, s) = <grad loss(i), grad loss(s)> over the dense parameters. Every use in the method sums over one
side, so per-example gradients are never formed: one backward pass over that side gives a direction, one
pass over the other side the derivative of each loss along it, and along further directions.

Shape suffixes: N targets, P directions.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import grad, jvp

from diet_ray.distillation.parameter_uses import RowsUnknownError, by_signals, row_dims
from diet_ray.models.examples import Examples, LossPerExample, Params

# Rows per pass: bounds the activations held, not the result.
CHUNK = 1024

# What `_checked_row_dims` returned for a loss: a property of the model, not of its parameters.
_row_dims: WeakKeyDictionary[LossPerExample, list[int] | None] = WeakKeyDictionary()

PROBE_ROWS = 3
PROBE_TOLERANCE = 0.01  # rounding is far below, a part that is missing or given to another row far above


def direction(loss: LossPerExample, params: Params, sources: Examples, chunk: int = CHUNK) -> Params:
    """Return the gradient of the summed loss of `sources`, shaped like `params` (one backward pass)."""
    summed_gradient = grad(lambda p, rows: loss(p, rows).sum())
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for rows in sources.chunks(chunk):
        for name, part in summed_gradient(params, rows).items():
            total[name] += part
    return total


def alignments(
    loss: LossPerExample, params: Params, targets: Examples, along: Sequence[Params], chunk: int = CHUNK
) -> Tensor:
    """Return the derivative of each target's loss along each of P directions; [N, P].

    The directions share a forward pass and a backward pass in the activations (parameter_uses.py). Where the
    operations of a model do not show which row a value belongs to, each takes a forward-mode pass.

    Args:
        loss: It must treat examples independently: a batch norm in training mode does not.
        along: Directions shaped like `params`.
        chunk: Rows per pass.
    """
    if not along or not targets.rows:
        return targets.emb_NFD.new_zeros(targets.rows, len(along))
    if loss not in _row_dims:
        _row_dims[loss] = _checked_row_dims(loss, params, targets)
    dims = _row_dims[loss]
    if dims is not None:
        try:
            return torch.cat([by_signals(loss, params, rows, along, dims) for rows in targets.chunks(chunk)])
        except RowsUnknownError:
            _row_dims[loss] = None
    return torch.cat([by_forward_mode(loss, params, rows, along) for rows in targets.chunks(chunk)])


def _checked_row_dims(loss: LossPerExample, params: Params, like: Examples) -> list[int] | None:
    """`row_dims`, or None: there are none, or forward mode disagrees on a few random rows like these.

    It would where an operation is one that PyTorch does not show, or permutes the rows.
    """
    draw = torch.Generator().manual_seed(0)
    emb_NFD = torch.randn(PROBE_ROWS, *like.emb_NFD.shape[1:], generator=draw)
    label_NT = torch.rand(PROBE_ROWS, *like.label_NT.shape[1:], generator=draw)
    rows = Examples(emb_NFD.to(like.emb_NFD), label_NT.to(like.label_NT))
    along = [{name: torch.randn(p.shape, generator=draw).to(p) for name, p in params.items()}]
    exact_NP = by_forward_mode(loss, params, rows, along)
    try:
        dims = row_dims(loss, params, rows)
        difference_NP = by_signals(loss, params, rows, along, dims) - exact_NP
    except RowsUnknownError:
        return None
    return dims if difference_NP.abs().max() <= PROBE_TOLERANCE * exact_NP.abs().max() else None


def by_forward_mode(loss: LossPerExample, params: Params, rows: Examples, along: Sequence[Params]) -> Tensor:
    """What `alignments` returns, by a forward-mode pass per direction: for any model, more slowly."""
    with torch.no_grad():
        return torch.stack([jvp(lambda p: loss(p, rows), (params,), (v,))[1] for v in along], 1)


def alignment(
    loss: LossPerExample, params: Params, targets: Examples, along: Params, chunk: int = CHUNK
) -> Tensor:
    """Return the derivative of each target's loss along one direction; [N]."""
    return alignments(loss, params, targets, [along], chunk)[:, 0]


def summed_influence(
    loss: LossPerExample, params: Params, *, sources: Examples, targets: Examples, chunk: int = CHUNK
) -> Tensor:
    """Score each target by the influence it receives from all sources together; returns [N].

    phi is symmetric, so the same call gives the weight of old memory rows (eq. 10), the deficiency of real
    rows (eq. 16) and the responsibility of memory rows (eq. 17).
    """
    return alignment(loss, params, targets, direction(loss, params, sources, chunk), chunk)

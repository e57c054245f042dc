"""The inner loop and the meta-gradient through its last steps (eqs. 18-19; RaT-BPTT, arXiv 2311.07025).

Shape suffixes: N rows, U distinct rows of all replicas, M rows of one inner loop, S inner steps, B inner
batch.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diet_ray.models.examples import Examples, LossPerExample, Params
from diet_ray.training.parallel.peers import Peers

State = dict[str, tuple[Tensor, ...]]


class InnerOptimiser(Protocol):
    """An optimiser as a pure, differentiable function of parameters, gradients and state."""

    def init(self, params: Params) -> State: ...

    def step(self, params: Params, grads: Params, state: State, count: int) -> tuple[Params, State]: ...


class Sgd(NamedTuple):
    """p <- p - lr g."""

    learning_rate: float

    def init(self, params: Params) -> State:
        return {name: () for name in params}

    def step(self, params: Params, grads: Params, state: State, count: int) -> tuple[Params, State]:
        return {name: p - self.learning_rate * grads[name] for name, p in params.items()}, state


class Adam(NamedTuple):
    """Adam (arXiv 1412.6980) with the epsilon inside the root.

    Outside it, the derivative of sqrt(v) is infinite wherever a gradient is exactly zero (a dead ReLU is
    enough) and turns the whole meta-gradient into NaN. `epsilon` is squared there to keep its usual scale.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, params: Params) -> State:
        return {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in params.items()}

    def step(self, params: Params, grads: Params, state: State, count: int) -> tuple[Params, State]:
        """Take step number `count`, counted from 1."""
        # Bias corrections are folded into two numbers: a step passes over the parameters six times.
        unbiased1, unbiased2 = 1 - self.beta1**count, 1 - self.beta2**count
        rate, epsilon = self.learning_rate * unbiased2**0.5 / unbiased1, self.epsilon**2 * unbiased2
        moved: Params = {}
        moments: State = {}
        for name, p in params.items():
            m, v = state[name]
            m = m.lerp(grads[name], 1 - self.beta1)
            v = (self.beta2 * v).addcmul(grads[name], grads[name], value=1 - self.beta2)
            moved[name] = p.addcdiv(m, (v + epsilon).sqrt(), value=-rate)
            moments[name] = (m, v)
        return moved, moments


def inner_loop(
    loss: LossPerExample,
    params: Params,
    examples: Examples,
    order_SB: Tensor,
    optimiser: InnerOptimiser,
    *,
    untracked: int = 0,
) -> Params:
    """Train `params` on the batches `examples[order_SB[s]]`, s = 0, 1, ...; return the final parameters.

    The first `untracked` steps leave no graph; the result is differentiable in `examples` through the rest.
    """
    params = {name: p.detach().requires_grad_() for name, p in params.items()}
    state = optimiser.init(params)
    for count, rows_B in enumerate(order_SB, start=1):
        tracked = count > untracked
        mean_loss = _mean_loss(loss, params, examples, rows_B)
        # A parameter that the model does not use has the gradient 0.
        gradients = torch.autograd.grad(
            mean_loss, list(params.values()), create_graph=tracked, materialize_grads=True
        )
        with torch.set_grad_enabled(tracked):
            params, state = optimiser.step(params, dict(zip(params, gradients, strict=True)), state, count)
        if not tracked:
            params = {name: p.requires_grad_() for name, p in params.items()}
    return params


def _mean_loss(loss: LossPerExample, params: Params, examples: Examples, rows_B: Tensor) -> Tensor:
    """Mean loss over the batch `examples[rows_B]`.

    A batch that is much longer than the memory has each row many times: it is computed once and counted as
    often. The sum is rounded otherwise, so batches of mostly distinct rows stay as they are.
    """
    if 2 * examples.rows > len(rows_B):
        return loss(params, examples.take(rows_B)).mean()
    loss_M = loss(params, examples)
    count_M = rows_B.bincount(minlength=examples.rows)
    return loss_M @ count_M.to(loss_M.dtype) / len(rows_B)


class MetaGradient(NamedTuple):
    """Gradient of the outer loss in the memory rows drawn inside the window; other rows have none."""

    rows_N: Tensor  # distinct row numbers, ascending
    emb_NFD: Tensor
    logit_NT: Tensor
    outer_loss: float


def meta_gradient(
    loss: LossPerExample,
    params: Params,
    *,
    emb_NFD: Tensor,
    logit_NT: Tensor,
    order_SB: Tensor,
    window: int,
    optimiser: InnerOptimiser,
    targets: Examples,
) -> MetaGradient:
    """Differentiate the loss after the inner loop in the memory rows of its last `window` steps.

    A memory row (embedding, logits) enters the inner loop as an example with soft label sigmoid(logits). Only
    the rows that `order_SB` names are touched, so time and memory do not grow with the memory (eq. 21).

    Args:
        loss: per example.
        params: where the inner loop starts.
        emb_NFD: embeddings of the memory.
        logit_NT: logits of the memory.
        order_SB: rows of each inner step.
        window: number of last steps that are differentiated.
        optimiser: of the inner loop.
        targets: the outer loss is the mean over them.
    """
    rows_M, local_SB = order_SB.unique(return_inverse=True)
    emb, logit = (part[rows_M].detach().requires_grad_() for part in (emb_NFD, logit_NT))
    untracked = max(0, len(order_SB) - window)
    examples = Examples(emb, logit.sigmoid())
    final = inner_loop(loss, params, examples, local_SB, optimiser, untracked=untracked)
    outer = loss(final, targets).mean()
    emb_grad, logit_grad = torch.autograd.grad(outer, (emb, logit))
    window_M = local_SB[untracked:].unique()
    return MetaGradient(rows_M[window_M], emb_grad[window_M], logit_grad[window_M], outer.item())


def averaged(own: MetaGradient, weight: float, peers: Peers) -> MetaGradient:
    """The weighted mean of the replicas' meta-gradients, the same in each of them, bit for bit.

    Where replicas share an inner loop and each has a part of the targets, weighted by its share
    (`Peers.share`), it is the meta-gradient over all targets. Where each has an inner loop of its own, it is
    the gradient of their mean outer loss. A row that a replica did not draw has the gradient 0 there.

    Args:
        own: of this replica.
        weight: of this replica in the mean; all weights sum to 1.
        peers: all replicas call this together. Traffic grows with the drawn rows, not with the memory.
    """
    device = own.rows_N.device
    sent = (own.rows_N.cpu(), own.emb_NFD.cpu(), own.logit_NT.cpu(), own.outer_loss, weight)
    everyone = peers.gather(sent)
    rows_U = torch.cat([rows_N for rows_N, *_ in everyone]).unique()
    emb = own.emb_NFD.new_zeros(len(rows_U), *own.emb_NFD.shape[1:], device="cpu")
    logit = own.logit_NT.new_zeros(len(rows_U), *own.logit_NT.shape[1:], device="cpu")
    for rows_N, emb_NFD, logit_NT, _, share in everyone:
        place_N = torch.searchsorted(rows_U, rows_N)
        emb[place_N] += share * emb_NFD
        logit[place_N] += share * logit_NT
    outer = sum(share * outer_loss for *_, outer_loss, share in everyone)
    return MetaGradient(rows_U.to(device), emb.to(device), logit.to(device), outer)

"""Phase 2 of a stage: address, unroll, take the outer step, again (paper, section 4.2, Algorithm 2).

Shape suffixes: N rows, F fields, D embedding dim, S inner steps, B inner batch.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diet_ray.config import InnerConfig, MethodConfig, OuterConfig
from diet_ray.distillation.addressing import active_memory, hard_targets
from diet_ray.distillation.memory import Memory
from diet_ray.distillation.outer import OuterOptimiser
from diet_ray.distillation.unroll import Adam, InnerOptimiser, Sgd, meta_gradient
from diet_ray.models.examples import Examples, LossPerExample, Params


class Progress(NamedTuple):
    """What one outer iteration did."""

    iteration: int
    outer_loss: float
    gradient_norm: float


class Proxy(NamedTuple):
    """A model that stands for the candidates: how it judges examples, and where an inner loop starts."""

    loss: LossPerExample
    params: Params


class Addressed(NamedTuple):
    """Which rows the next outer iterations are about, and the proxy that addressed them."""

    proxy: Proxy
    targets: Examples
    active_N: Tensor


def distil(
    proxies: Iterator[Proxy],
    memory: Memory,
    real: Examples,
    config: MethodConfig,
    draw: torch.Generator,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Memory:
    """Return `memory` with its addressed rows optimised; the others are the same to the bit.

    proxies: one is taken at each addressing.
    real: rows of the block in the space of the stage's checkpoint, labelled by `outer.target_labels`; each
        addressing looks at `outer.real_rows` of them, and at `outer.memory_rows` of the memory.
    draw: CPU generator; the result is a function of the arguments and its state alone. Everything else is
        on one device.
    """
    inner, outer = config.inner, config.outer
    optimiser = OuterOptimiser(
        memory.emb_NFD,
        memory.logit_NT,
        embedding_rate=outer.embedding_rate,
        logit_rate=outer.logit_rate,
        clip=outer.clip,
    )
    for iteration in range(outer.iterations):
        if iteration % outer.address_every == 0:
            stored = Examples(optimiser.emb_NFD, optimiser.logit_NT.sigmoid())
            addressed = _address(next(proxies), stored, real, config, draw)
        gradient = meta_gradient(
            *addressed.proxy,
            emb_NFD=optimiser.emb_NFD,
            logit_NT=optimiser.logit_NT,
            order_SB=_inner_order(addressed.active_N, inner, draw),
            window=inner.window,
            optimiser=_inner_optimiser(inner),
            targets=addressed.targets,
        )
        report(Progress(iteration, gradient.outer_loss, optimiser.step(gradient)))
    return memory._replace(emb_NFD=optimiser.emb_NFD, logit_NT=optimiser.logit_NT)


def _address(
    proxy: Proxy,
    stored: Examples,
    real: Examples,
    config: MethodConfig,
    draw: torch.Generator,
) -> Addressed:
    outer = config.outer
    device = real.emb_NFD.device
    seen = real.take(torch.randperm(real.rows, generator=draw)[: outer.real_rows].to(device))
    looked_at_N = _looked_at(stored.rows, outer.memory_rows, draw).to(device)
    memory = stored.take(looked_at_N)
    targets = seen.take(_target_rows(proxy, memory, seen, outer))
    if not outer.memory_selection:
        return Addressed(proxy, targets, torch.arange(stored.rows, device=device))
    count = _active_rows(config)
    active_N = active_memory(*proxy, hard=targets, memory=memory, count=count)
    return Addressed(proxy, targets, looked_at_N[active_N])


def _looked_at(rows: int, most: int, draw: torch.Generator) -> Tensor:
    """Row numbers of the memory, or of `most` of its rows: the cost of addressing must not grow with it."""
    return torch.arange(rows) if rows <= most else torch.randperm(rows, generator=draw)[:most]


def _target_rows(proxy: Proxy, memory: Examples, seen: Examples, outer: OuterConfig) -> Tensor:
    if outer.target_selection:
        return hard_targets(*proxy, real=seen, memory=memory, ratio=outer.hard_ratio)
    count = max(1, round(outer.hard_ratio * seen.rows))
    return torch.arange(count, device=seen.emb_NFD.device)  # `seen` is in random order


def _inner_order(active_N: Tensor, inner: InnerConfig, draw: torch.Generator) -> Tensor:
    """Rows [S, B] of an inner loop: passes over the active memory, each in a new order.

    Its length is `window` steps to differentiate after a number of untracked ones, uniform in
    {0 .. horizon - window} (RaT-BPTT).
    """
    spare = inner.horizon - inner.window + 1
    steps = inner.window + int(torch.randint(spare, (), generator=draw))
    wanted, passes = steps * inner.batch_size, -(-steps * inner.batch_size // len(active_N))
    orders = [torch.randperm(len(active_N), generator=draw).to(active_N.device) for _ in range(passes)]
    shuffled = [active_N[order_N] for order_N in orders]
    return torch.cat(shuffled)[:wanted].view(steps, inner.batch_size)


def _inner_optimiser(inner: InnerConfig) -> InnerOptimiser:
    return Adam(inner.learning_rate) if inner.optimiser == "adam" else Sgd(inner.learning_rate)


def _active_rows(config: MethodConfig) -> int:
    """Rows of the active memory: K_act of eq. 17."""
    if config.outer.active_rows == "auto":
        return config.inner.horizon * config.inner.batch_size
    return config.outer.active_rows

"""Phase 2 of a stage: address, unroll, take the outer step, repeat (paper, section 4.2, Algorithm 2).

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
    """The result of one outer iteration."""

    iteration: int
    outer_loss: float
    gradient_norm: float


class Proxy(NamedTuple):
    """A model that stands in for the candidates: its loss, and where an inner loop starts."""

    loss: LossPerExample
    params: Params


class Addressing(NamedTuple):
    """The rows that the next outer iterations work on, and the proxy that addressed them."""

    proxy: Proxy
    targets: Examples
    active_N: Tensor  # row numbers of the memory


def optimise_memory(
    proxies: Iterator[Proxy],
    memory: Memory,
    real: Examples,
    config: MethodConfig,
    draw: torch.Generator,
    report: Callable[[Progress], None] = lambda progress: None,
    weight_N: Tensor | None = None,
) -> Memory:
    """Optimise the addressed rows of a memory; the others stay bit-identical.

    Args:
        proxies: one is taken at each addressing.
        memory: the rows before.
        real: rows of the block in the embedding space of the stage's checkpoint, labelled by
            `outer.target_labels`; each addressing looks at `outer.real_rows` of them, and at
            `outer.memory_rows` of the memory.
        config: the method's settings.
        draw: CPU generator; the result is a function of the arguments and its state alone. Everything else
            is on one device.
        report: called after every outer iteration.
        weight_N: rows of the block that each row of `real` stands for; all alike where it is None.
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
            addressing = _address(next(proxies), stored, real, weight_N, config, draw)
        gradient = meta_gradient(
            addressing.proxy.loss,
            addressing.proxy.params,
            emb_NFD=optimiser.emb_NFD,
            logit_NT=optimiser.logit_NT,
            order_SB=_inner_order(addressing.active_N, inner, draw),
            window=inner.window,
            optimiser=_inner_optimiser(inner),
            targets=addressing.targets,
        )
        report(Progress(iteration, gradient.outer_loss, optimiser.step(gradient)))
    return memory._replace(emb_NFD=optimiser.emb_NFD, logit_NT=optimiser.logit_NT)


def _address(
    proxy: Proxy,
    stored: Examples,
    real: Examples,
    weight_N: Tensor | None,
    config: MethodConfig,
    draw: torch.Generator,
) -> Addressing:
    outer = config.outer
    device = real.emb_NFD.device
    sample_N = torch.randperm(real.rows, generator=draw)[: outer.real_rows].to(device)
    sample, weight_N = real.take(sample_N), None if weight_N is None else weight_N[sample_N]
    looked_at_N = _memory_sample(stored.rows, outer.memory_rows, draw).to(device)
    memory = stored.take(looked_at_N)
    targets = sample.take(_target_rows(proxy, memory, sample, weight_N, outer))
    if not outer.memory_selection:
        return Addressing(proxy, targets, torch.arange(stored.rows, device=device))
    active_N = active_memory(
        proxy.loss, proxy.params, hard=targets, memory=memory, count=_active_rows(config)
    )
    return Addressing(proxy, targets, looked_at_N[active_N])


def _memory_sample(rows: int, most: int, draw: torch.Generator) -> Tensor:
    """All row numbers of the memory, or `most` of them: addressing must not cost more as it grows."""
    return torch.arange(rows) if rows <= most else torch.randperm(rows, generator=draw)[:most]


def _target_rows(
    proxy: Proxy, memory: Examples, sample: Examples, weight_N: Tensor | None, outer: OuterConfig
) -> Tensor:
    if outer.target_selection:
        return hard_targets(
            proxy.loss,
            proxy.params,
            real=sample,
            memory=memory,
            ratio=outer.hard_ratio,
            weight_N=weight_N,
        )
    count = max(1, round(outer.hard_ratio * sample.rows))
    return torch.arange(count, device=sample.emb_NFD.device)  # the sample is in random order


def _inner_order(active_N: Tensor, inner: InnerConfig, draw: torch.Generator) -> Tensor:
    """Rows [S, B] of an inner loop: passes over the active memory, each in a new order.

    The loop has a number of untracked steps, uniform in {0 .. horizon - window}, before the `window` steps
    that are differentiated (RaT-BPTT).
    """
    starts = inner.horizon - inner.window + 1
    steps = inner.window + int(torch.randint(starts, (), generator=draw))
    rows, passes = steps * inner.batch_size, -(-steps * inner.batch_size // len(active_N))
    orders = [torch.randperm(len(active_N), generator=draw).to(active_N.device) for _ in range(passes)]
    shuffled = [active_N[order_N] for order_N in orders]
    return torch.cat(shuffled)[:rows].view(steps, inner.batch_size)


def _inner_optimiser(inner: InnerConfig) -> InnerOptimiser:
    return Adam(inner.learning_rate) if inner.optimiser == "adam" else Sgd(inner.learning_rate)


def _active_rows(config: MethodConfig) -> int:
    """Rows of the active memory: K_act of eq. 17."""
    if config.outer.active_rows == "auto":
        return config.inner.horizon * config.inner.batch_size
    return config.outer.active_rows

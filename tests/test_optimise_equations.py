"""Phase 2 against its equations, written out once more row by row in float64 (Algorithm 2, eqs. 16-19).

The slow version forms the matrix of all influences, trains by explicit formulas, and keeps a dense Adam of
which only the rows of a step move. It draws in the order of the fast one. Every setting of the inner and the
outer loop is varied: both versions change alike.

Shape suffixes: N rows, R real rows, S memory rows or inner steps, B inner batch.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from diet_ray.config import InnerConfig, MethodConfig, OuterConfig
from diet_ray.distillation.distiller import Progress, Proxy, optimise_memory
from diet_ray.distillation.memory import Memory
from diet_ray.models.examples import Examples, dense_params, loss_of
from tests.test_influence import per_example_gradients
from tests.test_memory import memory
from tests.tiny_network import examples, network

INNER = {"learning_rate": 0.02, "batch_size": 4, "horizon": 5, "window": 2}
OUTER: dict[str, Any] = {
    "iterations": 6,
    "embedding_rate": 0.02,
    "logit_rate": 0.1,
    "real_rows": 30,
    "memory_rows": 20,
    "hard_ratio": 0.2,
    "active_rows": 9,
    "address_every": 2,
    "clip": 0.9,
}
MEMORY_ROWS, REAL_ROWS = 24, 50
State = dict[str, Tensor]


def binary_cross_entropy(logit_NT: Tensor, label_NT: Tensor) -> Tensor:
    """Mean over the tasks; [N]."""
    chance_NT = 1 / (1 + (-logit_NT).exp())
    return -(label_NT * chance_NT.log() + (1 - label_NT) * (1 - chance_NT).log()).mean(1)


def mean_loss(model: nn.Module, weights: State, emb_NFD: Tensor, label_NT: Tensor) -> Tensor:
    return binary_cross_entropy(functional_call(model, weights, (emb_NFD,)), label_NT).mean()


class SlowOuter:
    """Eq. 19's step: Adam with the moments of all rows in dense tensors, and the clip of RaT-BPTT."""

    def __init__(self, part_N: Tensor, rate: float) -> None:
        self.part, self.rate = part_N.clone(), rate
        self.mean, self.square, self.steps = torch.zeros_like(part_N), torch.zeros_like(part_N), 0

    def move(self, gradient: Tensor, rows: list[int]) -> None:
        self.steps += 1
        for row in rows:
            self.mean[row] = 0.9 * self.mean[row] + 0.1 * gradient[row]
            self.square[row] = 0.999 * self.square[row] + 0.001 * gradient[row] ** 2
            root = (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
            self.part[row] -= self.rate * root * self.mean[row] / (self.square[row].sqrt() + 1e-8)


def slow_inner_step(
    weights: State, moments: dict[str, tuple[Tensor, Tensor]], gradients: State, step: int, inner: InnerConfig
) -> tuple[State, dict[str, tuple[Tensor, Tensor]]]:
    if inner.optimiser == "sgd":
        return {name: w - inner.learning_rate * gradients[name] for name, w in weights.items()}, moments
    stepped, changed = {}, {}
    for name, w in weights.items():
        m = 0.9 * moments[name][0] + 0.1 * gradients[name]
        v = 0.999 * moments[name][1] + 0.001 * gradients[name] ** 2
        root = (v / (1 - 0.999**step) + 1e-16) ** 0.5
        stepped[name] = w - inner.learning_rate * (m / (1 - 0.9**step)) / root
        changed[name] = (m, v)
    return stepped, changed


def slow_meta_gradient(
    model: nn.Module, stored: tuple[Tensor, Tensor], order_SB: Tensor, targets: Examples, inner: InnerConfig
) -> tuple[Tensor, Tensor, float]:
    """The gradient of eq. 19 through the last `window` steps of eq. 18, dense over the memory."""
    emb, logit = (part.clone().requires_grad_() for part in stored)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in weights.items()}
    for step, rows_B in enumerate(order_SB.tolist(), start=1):
        label_NT = 1 / (1 + (-logit[rows_B]).exp())
        loss = mean_loss(model, weights, emb[rows_B], label_NT)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights, moments = slow_inner_step(
            weights, moments, dict(zip(weights, gradients, strict=True)), step, inner
        )
        if step <= len(order_SB) - inner.window:
            weights = {name: w.detach().requires_grad_() for name, w in weights.items()}
            moments = {name: (m.detach(), v.detach()) for name, (m, v) in moments.items()}
    outer = mean_loss(model, weights, targets.emb_NFD, targets.label_NT)
    by_emb, by_logit = torch.autograd.grad(outer, (emb, logit))
    return by_emb, by_logit, outer.item()


def slow_addressing(
    model: nn.Module, stored: Examples, real: Examples, config: MethodConfig, draw: torch.Generator
) -> tuple[Examples, Tensor]:
    """The targets and the numbers of the active memory rows, by the matrix of all influences."""
    outer, inner = config.outer, config.inner
    sample = real.take(torch.randperm(real.rows, generator=draw)[: outer.real_rows])
    visible_N = torch.arange(stored.rows)
    if stored.rows > outer.memory_rows:
        visible_N = torch.randperm(stored.rows, generator=draw)[: outer.memory_rows]
    phi_RS = per_example_gradients(model, sample) @ per_example_gradients(model, stored.take(visible_N)).T
    count = max(1, round(outer.hard_ratio * sample.rows))
    hard_N = torch.arange(count)
    if outer.target_selection:
        hard_N = torch.tensor(sorted(range(sample.rows), key=phi_RS.sum(1).tolist().__getitem__)[:count])
    active_N = torch.arange(stored.rows)
    if outer.memory_selection:
        most = inner.horizon * inner.batch_size if outer.active_rows == "auto" else outer.active_rows
        blame = (-phi_RS[hard_N].sum(0)).tolist()
        active_N = visible_N[sorted(range(len(visible_N)), key=blame.__getitem__)[:most]]
    return sample.take(hard_N), active_N


def slow_order(active_N: Tensor, inner: InnerConfig, draw: torch.Generator) -> Tensor:
    start = int(torch.randint(inner.horizon - inner.window + 1, (), generator=draw))
    rows: list[int] = []
    while len(rows) < (start + inner.window) * inner.batch_size:
        rows += active_N[torch.randperm(len(active_N), generator=draw)].tolist()
    return torch.tensor(rows[: (start + inner.window) * inner.batch_size]).view(-1, inner.batch_size)


def slow_optimise(
    models: Iterator[nn.Module], start: Memory, real: Examples, config: MethodConfig, draw: torch.Generator
) -> tuple[Tensor, Tensor, list[Progress]]:
    outer = config.outer
    emb, logit = SlowOuter(start.emb_NFD, outer.embedding_rate), SlowOuter(start.logit_NT, outer.logit_rate)
    usual, history = 0.0, list[Progress]()
    for iteration in range(outer.iterations):
        if iteration % outer.address_every == 0:
            model, stored = next(models), Examples(emb.part, logit.part.sigmoid())
            targets, active_N = slow_addressing(model, stored, real, config, draw)
        order_SB = slow_order(active_N, config.inner, draw)
        by_emb, by_logit, loss = slow_meta_gradient(
            model, (emb.part, logit.part), order_SB, targets, config.inner
        )
        norm = (by_emb.square().sum() + by_logit.square().sum()).sqrt().item()
        usual = usual or norm
        scale = min(1.0, outer.clip * usual / norm)
        usual = 0.9 * usual + 0.1 * scale * norm
        rows = sorted({row for rows_B in order_SB[-config.inner.window :].tolist() for row in rows_B})
        emb.move(scale * by_emb, rows)
        logit.move(scale * by_logit, rows)
        history.append(Progress(iteration, loss, norm))
    return emb.part, logit.part, history


def settings(inner: dict[str, Any], outer: dict[str, Any]) -> MethodConfig:
    return MethodConfig(inner=InnerConfig(**{**INNER, **inner}), outer=OuterConfig(**{**OUTER, **outer}))


def real_rows() -> Examples:
    """Soft labels, as a teacher gives them."""
    drawn = examples(REAL_ROWS, seed=3)
    noise = torch.rand(drawn.label_NT.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return drawn._replace(label_NT=0.8 * drawn.label_NT + 0.2 * noise)


def fast(config: MethodConfig) -> tuple[Memory, list[Progress]]:
    models, history = [network(seed=1), network(seed=2)], list[Progress]()
    proxies = cycle([Proxy(loss_of(model), dense_params(model)) for model in models])
    draw = torch.Generator().manual_seed(5)
    stored = optimise_memory(proxies, memory(MEMORY_ROWS, 6), real_rows(), config, draw, history.append)
    return stored, history


CHANGES: list[tuple[str, str, Any]] = [
    ("inner", "optimiser", "sgd"),
    ("inner", "learning_rate", 0.05),
    ("inner", "batch_size", 7),
    ("inner", "horizon", 8),
    ("inner", "window", 4),
    ("outer", "iterations", 3),
    ("outer", "embedding_rate", 0.001),
    ("outer", "logit_rate", 0.001),
    ("outer", "clip", 0.1),
    ("outer", "real_rows", 20),
    ("outer", "memory_rows", 12),
    ("outer", "memory_rows", MEMORY_ROWS),
    ("outer", "hard_ratio", 0.01),
    ("outer", "active_rows", 5),
    ("outer", "active_rows", "auto"),
    ("outer", "address_every", 3),
    ("outer", "target_selection", False),
    ("outer", "memory_selection", False),
]


def test_every_setting_is_varied() -> None:
    """What is applied before, to the pool, is not: see tests/test_stage_choices.py and tests/test_pool.py."""
    of_pool = ("target_labels", "hard_share")
    of_optimisation = {("inner", key) for key in InnerConfig.model_fields}
    of_optimisation |= {("outer", key) for key in OuterConfig.model_fields if key not in of_pool}
    assert {(section, key) for section, key, _ in CHANGES} == of_optimisation


@pytest.mark.parametrize(("section", "key", "value"), [("outer", "iterations", 6), *CHANGES])
def test_an_optimisation_equals_the_slow_one(section: str, key: str, value: Any) -> None:
    config = settings(**{"inner": {}, "outer": {}, section: {key: value}})
    stored, history = fast(config)
    models = cycle([network(seed=1), network(seed=2)])
    start, draw = memory(MEMORY_ROWS, 6), torch.Generator().manual_seed(5)
    emb_NFD, logit_NT, expected = slow_optimise(models, start, real_rows(), config, draw)
    torch.testing.assert_close(stored.emb_NFD, emb_NFD, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(stored.logit_NT, logit_NT, rtol=1e-8, atol=1e-10)
    assert [progress.iteration for progress in history] == list(range(config.outer.iterations))
    for ours, theirs in zip(history, expected, strict=True):
        assert ours[1:] == pytest.approx(theirs[1:], rel=1e-9)
    for part in ("stage_N", "group_N"):
        assert torch.equal(getattr(stored, part), getattr(start, part))


@pytest.mark.parametrize(("section", "key", "value"), CHANGES)
def test_every_setting_changes_the_memory(section: str, key: str, value: Any) -> None:
    """So that the comparison with the slow version sees each of them."""
    usual, _ = fast(settings({}, {}))
    other, _ = fast(settings(**{"inner": {}, "outer": {}, section: {key: value}}))
    assert not torch.equal(usual.emb_NFD, other.emb_NFD)
    assert not torch.equal(usual.logit_NT, other.logit_NT)


def test_each_rate_moves_its_own_part() -> None:
    """At first: the embeddings of one iteration do not depend on the rate of the logits, and vice versa."""
    start = memory(MEMORY_ROWS, 6)
    usual, _ = fast(settings({}, {"iterations": 1}))
    for rate, still, same in (
        ("embedding_rate", "emb_NFD", "logit_NT"),
        ("logit_rate", "logit_NT", "emb_NFD"),
    ):
        other, _ = fast(settings({}, {"iterations": 1, rate: 1e-12}))
        assert torch.equal(getattr(other, same), getattr(usual, same))
        torch.testing.assert_close(getattr(other, still), getattr(start, still), rtol=0, atol=1e-11)
        assert not torch.allclose(getattr(usual, still), getattr(start, still), atol=1e-5)

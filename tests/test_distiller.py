"""A whole optimisation of a small memory: it helps, repeats itself, and moves only what it addresses."""

from itertools import repeat

import pytest
import torch
from pydantic import ValidationError

from diet_ray.config import BoundaryConfig, InnerConfig, MethodConfig, OuterConfig
from diet_ray.distillation.distiller import Progress, Proxy, optimise_memory
from diet_ray.distillation.memory import Memory
from diet_ray.distillation.unroll import Adam, inner_loop
from diet_ray.models.examples import Examples, dense_params, loss_of
from tests.test_memory import memory
from tests.tiny_network import DIM, FIELDS, TASKS, examples, network

INNER = InnerConfig(learning_rate=0.02, batch_size=8, horizon=6, window=3)
OUTER = OuterConfig(
    iterations=30, embedding_rate=0.02, logit_rate=0.1, real_rows=200, hard_ratio=0.5, active_rows=16
)


def learnable(rows: int) -> Examples:
    """Labels that a linear map of the embedding decides."""
    drawn = examples(rows, seed=8)
    plane = torch.randn(FIELDS * DIM, TASKS, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return drawn._replace(label_NT=(drawn.emb_NFD.flatten(1) @ plane > 0).double())


def run(outer: OuterConfig, seed: int = 0) -> tuple[Memory, list[Progress]]:
    model, seen = network(), []
    found = optimise_memory(
        repeat(Proxy(loss_of(model), dense_params(model))),
        memory(40, seed=1),
        learnable(400),
        MethodConfig(inner=INNER, outer=outer),
        torch.Generator().manual_seed(seed),
        seen.append,
    )
    return found, seen


def loss_after_training_on(stored: Memory) -> float:
    model = network()
    loss = loss_of(model)
    order_SB = torch.arange(40).repeat(3).view(-1, 8)
    trained = inner_loop(
        loss, dense_params(model), stored.examples(), order_SB, Adam(0.02), untracked=len(order_SB)
    )
    return loss(trained, learnable(400)).mean().item()


@pytest.mark.parametrize(
    "change", [{}, {"target_selection": False}, {"memory_selection": False}, {"memory_rows": 25}]
)
def test_training_on_the_distilled_memory_fits_the_real_rows_better(change: dict) -> None:
    found, seen = run(OUTER.model_copy(update=change))
    assert [p.iteration for p in seen] == list(range(30))
    assert loss_after_training_on(found) < loss_after_training_on(memory(40, seed=1)) - 0.05


def test_same_seed_same_memory_to_the_bit() -> None:
    (a, _), (b, _), (c, _) = run(OUTER, seed=3), run(OUTER, seed=3), run(OUTER, seed=4)
    assert torch.equal(a.emb_NFD, b.emb_NFD) and torch.equal(a.logit_NT, b.logit_NT)
    assert not torch.equal(a.emb_NFD, c.emb_NFD)


def test_without_iterations_the_memory_stays_as_it_was() -> None:
    found, seen = run(OUTER.model_copy(update={"iterations": 0}))
    assert seen == [] and torch.equal(found.emb_NFD, memory(40, seed=1).emb_NFD)


def test_one_addressing_moves_at_most_the_active_rows() -> None:
    found, _ = run(OUTER.model_copy(update={"iterations": 5, "address_every": 5}))
    moved = (found.emb_NFD != memory(40, seed=1).emb_NFD).flatten(1).any(1)
    assert 0 < int(moved.sum()) <= 16


def test_an_addressing_looks_at_a_sample_of_a_large_memory() -> None:
    one = OUTER.model_copy(update={"iterations": 5, "address_every": 5, "memory_rows": 10})
    moved = [(run(one, seed)[0].emb_NFD != memory(40, seed=1).emb_NFD).flatten(1).any(1) for seed in (0, 1)]
    assert all(0 < int(rows_N.sum()) <= 10 for rows_N in moved)
    assert not torch.equal(*moved)  # another draw looks at other rows


@pytest.mark.parametrize(
    ("budget", "held", "fusion", "new"),
    [(100, 0, True, 100), (200, 100, True, 100), (300, 200, True, 150), (300, 200, False, 300)],
)
def test_split_of_the_budget(budget: int, held: int, fusion: bool, new: int) -> None:
    assert BoundaryConfig(fusion=fusion, new_share=0.5).new_rows(budget, held) == new


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"windw": 3}, "windw"),
        ({"window": 9, "horizon": 4}, "longer than horizon"),
        ({"horizon": 0}, "horizon"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        InnerConfig(**values)

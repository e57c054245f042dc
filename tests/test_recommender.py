"""Tables grow without touching what they hold, and a step moves only the rows of its batch."""

import pytest
import torch
from torch import Tensor, nn

from diet_ray.errors import DataError
from diet_ray.models.examples import Examples
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.recommender import Recommender

ROWS = (50, 7, 4)


def recommender(seed: int = 0, clip_norm: float = 10.0) -> Recommender:
    config = ModelConfig(options={"hidden": (16, 8)})
    dense = build_model(config, fields=3, dim=4, tasks=2, seed=seed)
    built = Recommender(dense, 3, 4, learning_rate=1e-2, clip_norm=clip_norm)
    built.grow(ROWS, torch.Generator().manual_seed(seed))
    return built


def batch(rows: int = 32, seed: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    id_NF = torch.stack([torch.randint(min(r, 5), (rows,), generator=draw) for r in ROWS], 1)
    return id_NF, (id_NF[:, :2] % 2 == 1).float()


def state(learner: Recommender, field: int) -> list[Tensor]:
    weight = learner.tables.weights()[field]
    kept = learner.table_optimiser.state[weight]
    return [weight.detach(), kept["exp_avg"], kept["exp_avg_sq"]]


def gradients(part: nn.Module) -> list[Tensor]:
    return [p.grad.to_dense() for p in part.parameters() if p.grad is not None]


def test_only_rows_of_the_batch_move() -> None:
    learner = recommender()
    learner.step(*batch())
    before = [t.clone() for t in state(learner, 0)]
    id_NF, label_NT = batch(seed=2)
    id_NF[:, 0] = 3
    learner.step(id_NF, label_NT)
    others = torch.arange(ROWS[0]) != 3
    for now, then in zip(state(learner, 0), before, strict=True):
        assert torch.equal(now[others], then[others])
        assert not torch.equal(now[3], then[3])


def test_growth_keeps_old_rows_their_moments_and_the_next_step() -> None:
    small, grown = recommender(), recommender()
    small.step(*batch())
    grown.step(*batch())
    before = [t.clone() for t in state(grown, 0)]
    grown.grow((90, 7, 9), torch.Generator().manual_seed(5))
    assert grown.tables.rows == (90, 7, 9)
    for now, then in zip(state(grown, 0), before, strict=True):
        assert torch.equal(now[:50], then)
    assert small.step(*batch(seed=2)) == grown.step(*batch(seed=2))
    for now, then in zip(state(grown, 0), state(small, 0), strict=True):
        assert torch.equal(now[:50], then)


def test_a_table_cannot_shrink() -> None:
    with pytest.raises(DataError, match="table 1 has 7 rows, cannot shrink to 6"):
        recommender().grow((50, 6, 4), torch.Generator())


def test_it_learns_labels_that_depend_on_ids() -> None:
    learner = recommender()
    first = learner.step(*batch())
    for seed in range(60):
        last = learner.step(*batch(seed=seed))
    assert last < 0.5 * first


@pytest.mark.parametrize("rows", [32, 8])
def test_rows_beside_a_batch_weigh_as_told_and_leave_the_tables_alone(rows: int) -> None:
    """Beside is what the batch looks like in embedding space: the dense model is told the same."""
    alone, beside = recommender(), recommender()
    id_NF, label_NT = (part[:8].repeat(4, 1) for part in batch())
    same = Examples(beside.tables(id_NF[:rows]).detach(), label_NT[:rows])
    assert alone.step(id_NF, label_NT) == pytest.approx(beside.step(id_NF, label_NT, same, weight=3.0))
    for one, other in zip(gradients(alone.dense), gradients(beside.dense), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    for one, other in zip(gradients(alone.tables), gradients(beside.tables), strict=True):
        torch.testing.assert_close(one / 4, other, atol=1e-6, rtol=1e-4)


def test_the_joint_gradient_norm_is_clipped() -> None:
    learner = recommender(clip_norm=1e-3)
    learner.step(*batch())
    parameters = [*learner.dense.parameters(), *learner.tables.weights()]
    squares = [p.grad.to_dense().square().sum() for p in parameters if p.grad is not None]
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-4)


def test_a_diverged_step_stops_before_anything_moves() -> None:
    learner = recommender()
    before = learner.tables.weights()[0].detach().clone()
    id_NF, label_NT = batch()
    with pytest.raises(DataError, match="training loss is nan"):
        learner.step(id_NF, label_NT * float("nan"))
    assert torch.equal(learner.tables.weights()[0], before)

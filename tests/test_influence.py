"""Influence against the slow version that forms every example's gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from diet_ray.distillation import influence
from diet_ray.distillation.influence import alignment, alignments, summed_influence
from diet_ray.models.base import DenseModel
from diet_ray.models.ensemble import Ensemble
from diet_ray.models.examples import Examples, LossPerExample, Params, dense_params, loss_of
from diet_ray.models.registry import ARCHITECTURES, ModelConfig, build_model
from tests.test_models import SMALL, SMALL_HEAD
from tests.tiny_network import DIM, FIELDS, TASKS, examples, network


def per_example_gradients(model: torch.nn.Module, rows: Examples) -> Tensor:
    """[N, P]: one flattened gradient per row."""
    loss, params = loss_of(model), dense_params(model)

    def one(p: dict[str, Tensor], emb_FD: Tensor, label_T: Tensor) -> Tensor:
        return loss(p, Examples(emb_FD[None], label_T[None]))[0]

    gradients = vmap(grad(one), in_dims=(None, 0, 0))(params, rows.emb_NFD, rows.label_NT)
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


@pytest.mark.parametrize("chunk", [7, 4096])
def test_equals_the_sum_of_per_example_inner_products(chunk: int) -> None:
    model, sources, targets = network(), examples(40, seed=1), examples(30, seed=2)
    slow_N = per_example_gradients(model, targets) @ per_example_gradients(model, sources).sum(0)
    fast_N = summed_influence(
        loss_of(model), dense_params(model), sources=sources, targets=targets, chunk=chunk
    )
    torch.testing.assert_close(fast_N, slow_N, rtol=1e-10, atol=0)


def test_is_additive_over_sources() -> None:
    model, sources, targets = network(), examples(20, seed=1), examples(10, seed=2)
    loss, params = loss_of(model), dense_params(model)
    whole = summed_influence(loss, params, sources=sources, targets=targets)
    parts = [summed_influence(loss, params, sources=s, targets=targets) for s in sources.chunks(8)]
    torch.testing.assert_close(whole, sum(parts), rtol=1e-10, atol=1e-14)


def test_predicts_the_loss_change_of_a_small_step() -> None:
    """Eq. 14: after a step of size lr on the sources, a target's loss falls by lr times its influence."""
    model, sources, targets, lr = network(), examples(20, seed=1), examples(10, seed=2), 1e-6
    loss, params = loss_of(model), dense_params(model)
    gradient = grad(lambda p: loss(p, sources).sum())(params)
    stepped = {name: p - lr * gradient[name] for name, p in params.items()}
    change_N = loss(stepped, targets) - loss(params, targets)
    predicted_N = -lr * summed_influence(loss, params, sources=sources, targets=targets)
    torch.testing.assert_close(change_N, predicted_N, rtol=1e-3, atol=1e-10)


def test_a_row_scores_the_same_alone() -> None:
    model, sources, targets = network(), examples(20, seed=1), examples(10, seed=2)
    loss, params = loss_of(model), dense_params(model)
    together = summed_influence(loss, params, sources=sources, targets=targets)
    alone = summed_influence(loss, params, sources=sources, targets=targets.take(slice(3, 4)))
    torch.testing.assert_close(together[3:4], alone, rtol=1e-12, atol=0)


def built(name: str, seed: int = 0, **options: Any) -> DenseModel:
    config = ModelConfig(name=name, options={**SMALL.get(name, {}), **options}, head=SMALL_HEAD)
    model = build_model(config, fields=FIELDS, dim=DIM, tasks=TASKS, seed=seed).double()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():  # biases start at 0, the gate of FinalNet as the identity
            p.add_(0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return model


def directions(params: Params, count: int) -> list[Params]:
    draw = torch.Generator().manual_seed(5)
    return [
        {name: torch.randn(p.shape, generator=draw, dtype=p.dtype) for name, p in params.items()}
        for _ in range(count)
    ]


def slow_alignments(model: nn.Module, rows: Examples, along: list[Params]) -> Tensor:
    flat = [torch.cat([v[name].flatten() for name in dense_params(model)]) for v in along]
    return per_example_gradients(model, rows) @ torch.stack(flat, 1)


class FieldsFirst(nn.Module):
    """The rows are the second dimension of what its layer puts out."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(dim, dim), nn.Parameter(torch.ones(fields, 1, dim))
        self.out_features = fields * dim

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return (self.layer(emb_NFD.transpose(0, 1)) * self.scale).relu().transpose(0, 1).flatten(1)


class FieldsAsRows(nn.Module):
    """Each field goes through the layer as a row of its own."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        self.out_features = fields * dim

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.layer(emb_NFD.flatten(0, 1)).relu().view(len(emb_NFD), -1)


class InPlace(nn.Module):
    """A parameter is added in place."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(fields * dim, 5), nn.Linear(5, 5)
        self.bias = nn.Parameter(torch.randn(5))
        self.out_features = 5

    def forward(self, emb_NFD: Tensor) -> Tensor:
        x = self.first(emb_NFD.flatten(1))
        x += self.bias
        return self.second(x).relu_()


class Hidden(torch.autograd.Function):
    """x W, by an operation that PyTorch does not show from outside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return signal @ weight.T, x.T @ signal

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, weight_tangent: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        moved = torch.zeros_like(x @ weight) if x_tangent is None else x_tangent @ weight
        return moved if weight_tangent is None else moved + x @ weight_tangent


class OwnFunction(nn.Module):
    """A layer that is an autograd.Function."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fields * dim, 5))
        self.out_features = 5

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return Hidden.apply(emb_NFD.flatten(1), self.weight)


class Reversed(nn.Module):
    """A layer that sees the rows in the reverse order."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(fields * dim, 5)
        self.out_features = 5

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.layer(emb_NFD.flatten(1).flip(0)).flip(0)


OWN = [
    f"tests.test_influence:{kind.__name__}"
    for kind in (FieldsFirst, FieldsAsRows, InPlace, OwnFunction, Reversed)
]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ARCHITECTURES),
    ("dcnv2", {"low_rank": False}),
    *((name, {}) for name in OWN),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_alignments_are_inner_products_of_per_example_gradients(name: str, options: dict[str, Any]) -> None:
    model, rows = built(name, **options), examples(30, seed=2)
    params = dense_params(model)
    along = directions(params, 3)
    fast_NP = alignments(loss_of(model), params, rows, along, chunk=11)
    torch.testing.assert_close(fast_NP, slow_alignments(model, rows, along), rtol=1e-10, atol=0)


def test_alignments_of_each_member_of_an_ensemble_and_of_the_whole() -> None:
    ensemble = Ensemble([built("dcn"), built("wukong", seed=1)])
    rows = examples(20, seed=2)
    for model in (*ensemble.members(), ensemble):
        params = dense_params(model)
        along = directions(params, 2)
        fast_NP = alignments(loss_of(model), params, rows, along)
        torch.testing.assert_close(fast_NP, slow_alignments(model, rows, along), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_architectures_need_no_forward_mode_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their derivatives come from one backward pass, in either layout of DCNv2's experts too."""
    model, rows = built(name), examples(5)
    params = dense_params(model)
    passes: list[int] = []
    forward_mode = influence.by_forward_mode

    def counted(loss: LossPerExample, params: Params, rows: Examples, along: Any) -> Tensor:
        passes.append(rows.rows)
        return forward_mode(loss, params, rows, along)

    monkeypatch.setattr(influence, "by_forward_mode", counted)
    alignments(loss_of(model), params, rows, directions(params, 1))
    assert passes == [influence.PROBE_ROWS]


@pytest.mark.parametrize("kind", ["wukong", OWN[1]])
def test_alignments_are_linear_in_the_direction(kind: str) -> None:
    model, rows = built(kind), examples(20, seed=2)
    loss, params = loss_of(model), dense_params(model)
    first, second = directions(params, 2)
    mixed = {name: 2 * first[name] - 3 * second[name] for name in params}
    score_NP = alignments(loss, params, rows, [first, second, mixed])
    expected_N = 2 * score_NP[:, 0] - 3 * score_NP[:, 1]
    torch.testing.assert_close(score_NP[:, 2], expected_N, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [*ARCHITECTURES, OWN[1]])
def test_a_direction_scores_the_same_alone_and_with_others(kind: str) -> None:
    model, rows = built(kind), examples(20, seed=2)
    loss, params = loss_of(model), dense_params(model)
    along = directions(params, 3)
    together_NP = alignments(loss, params, rows, along)
    for p, v in enumerate(along):
        assert torch.equal(alignment(loss, params, rows, v), together_NP[:, p])


@pytest.mark.parametrize("kind", [*ARCHITECTURES, OWN[1]])
def test_alignments_do_not_depend_on_the_chunk(kind: str) -> None:
    model, rows = built(kind), examples(20, seed=2)
    loss, params = loss_of(model), dense_params(model)
    along = directions(params, 2)
    whole_NP = alignments(loss, params, rows, along)
    for chunk in (1, 3, 19):  # 3: as many rows as there are fields
        cut_NP = alignments(loss, params, rows, along, chunk=chunk)
        torch.testing.assert_close(cut_NP, whole_NP, rtol=1e-10, atol=1e-12)


def test_no_rows_and_no_directions() -> None:
    model = network()
    loss, params = loss_of(model), dense_params(model)
    assert alignments(loss, params, examples(0), [params, params]).shape == (0, 2)
    assert alignments(loss, params, examples(3), []).shape == (3, 0)

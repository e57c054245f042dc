"""Influence against the slow version that forms every example's gradient."""

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from diet_ray.distillation.influence import summed_influence
from diet_ray.models.examples import Examples, dense_params, loss_of
from tests.tiny_network import examples, network


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

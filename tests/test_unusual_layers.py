"""Models with frozen, unused, shared or tied layers are trained, stored, restored and distilled as well."""

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from diet_ray.config import FitConfig
from diet_ray.distillation.influence import summed_influence
from diet_ray.distillation.unroll import Sgd, meta_gradient
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples, dense_params, loss_of
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.checkpoints.restoring import restore
from diet_ray.training.checkpoints.snapshot import Snapshot
from diet_ray.training.recommender import Recommender
from diet_ray.training.serialization import to_safetensors
from tests.stored_checkpoint import same_state, stored
from tests.test_recommender import batch

KINDS = ("TwoLayers", "Frozen", "Unused", "Shared", "Tied", "Normed")
FIELDS, DIM, TASKS = 3, 4, 2


def model(kind: str, seed: int = 0) -> RankingModel:
    config = ModelConfig(name=f"tests.own_backbone:{kind}")
    return build_model(config, fields=FIELDS, dim=DIM, tasks=TASKS, seed=seed)


def rows(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    emb_NFD = torch.randn(count, FIELDS, DIM, generator=draw, dtype=dtype)
    return Examples(emb_NFD, (torch.rand(count, TASKS, generator=draw) < 0.5).to(dtype))


def fresh(kind: str, seed: int = 0) -> CandidateTraining:
    config = FitConfig(batch_size=16, epochs=4, patience=4)
    return CandidateTraining(model(kind, seed), rows(40, 1), rows(40, 2), config, seed=3)


def recommender(kind: str, seed: int = 0) -> Recommender:
    return Recommender(model(kind, seed), FIELDS, DIM, learning_rate=1e-2)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_stored_after_an_epoch_continues_bit_for_bit(kind: str) -> None:
    whole, first, second = fresh(kind), fresh(kind), fresh(kind, seed=9)
    first.epoch()
    content = first.save()
    torch.manual_seed(7)  # of the dropout
    first.run()
    second.restore(content)
    assert second.save() == content
    torch.manual_seed(7)
    second.run()
    assert second.scores == first.scores and second.best == first.best
    assert equal(second.model.state_dict(), first.model.state_dict())
    assert equal(second.best_weights, first.best_weights)
    if kind != "Normed":
        whole.run()
        assert whole.scores == first.scores


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_stored_between_blocks_continues_bit_for_bit(kind: str) -> None:
    saved, restored = recommender(kind), recommender(kind, seed=9)
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    for seed in range(3):
        saved.step(*batch(seed=seed))
    checkpoint = stored(saved)
    restore(restored, checkpoint)
    scoring = Snapshot.of(checkpoint, recommender(kind, seed=9).dense, fields=3, dim=4)
    assert same_state(restored, saved)
    assert equal(scoring.dense.state_dict(), saved.dense.state_dict())
    for seed in range(3):
        torch.manual_seed(seed)
        expected = saved.step(*batch(seed=10 + seed))
        torch.manual_seed(seed)
        assert restored.step(*batch(seed=10 + seed)) == expected
    assert same_state(saved, restored)


def test_layers_that_are_one_remain_one_after_restoring() -> None:
    saved, restored = fresh("Shared"), fresh("Shared", seed=9)
    saved.epoch()
    restored.restore(saved.save())
    backbone: Any = restored.model.backbone
    assert backbone.first.weight is backbone.second.weight
    assert len(restored.optimiser.state) == len(list(restored.model.parameters()))


def test_frozen_and_unused_layers_stay_as_they_were() -> None:
    for kind in ("Frozen", "Unused"):
        training = fresh(kind)
        before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
        training.run()
        after = training.model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name for name in before if "backbone.first" in name}.isdisjoint(changed)
        assert {"backbone.second.weight", "backbone.second.bias"} <= changed


@pytest.mark.parametrize("name", ["dcn", "finalnet"])
def test_an_ordinary_state_is_written_as_safetensors_writes_it(name: str) -> None:
    state = build_model(ModelConfig(name=name), fields=3, dim=4, tasks=2, seed=0).state_dict()
    assert to_safetensors(state) == save(dict(state))


def test_tensors_that_share_memory_are_each_written_in_full() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "base": base,
        "same": base,
        "row": base[1],
        "turned": base.T,
        "empty": base[:0],
        "none": base[:0],
    }
    read = load(to_safetensors(state))
    assert equal(read, {name: tensor.contiguous() for name, tensor in state.items()})


def proxy(kind: str) -> RankingModel:
    return model(kind).double()


@pytest.mark.parametrize("kind", ["Frozen", "Unused", "Shared", "Tied"])
def test_influence_is_the_inner_product_of_the_gradients_of_trained_parameters(kind: str) -> None:
    built, sources, targets = proxy(kind), rows(5, 1, torch.float64), rows(4, 2, torch.float64)
    trained = [parameter for parameter in built.parameters() if parameter.requires_grad]

    def gradient(examples: Examples) -> Tensor:
        built.zero_grad()
        loss = built.eval().loss(*examples)
        parts = torch.autograd.grad(loss, trained, allow_unused=True)
        return torch.cat(
            [
                torch.zeros(p.numel()) if g is None else g.flatten()
                for p, g in zip(trained, parts, strict=True)
            ]
        )

    total = gradient(sources) * sources.rows
    expected = torch.stack([gradient(targets.take(slice(n, n + 1))) @ total for n in range(targets.rows)])
    actual = summed_influence(loss_of(built), dense_params(built), sources=sources, targets=targets)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["Frozen", "Unused", "Shared", "Tied"])
def test_the_meta_gradient_agrees_with_finite_differences(kind: str) -> None:
    built, targets = proxy(kind), rows(6, 2, torch.float64)
    draw = torch.Generator().manual_seed(5)
    logit_NT = torch.randn(4, TASKS, generator=draw, dtype=torch.float64)
    emb_NFD, order_SB = rows(4, 1, torch.float64).emb_NFD, torch.tensor([[0, 1], [2, 3], [1, 2]])

    def outer(emb_NFD: Tensor) -> Any:
        return meta_gradient(
            loss_of(built),
            dense_params(built),
            emb_NFD=emb_NFD,
            logit_NT=logit_NT,
            order_SB=order_SB,
            window=3,
            optimiser=Sgd(0.1),
            targets=targets,
        )

    step = torch.zeros_like(emb_NFD)
    step[1, 2, 3] = 1e-5
    slope = (outer(emb_NFD + step).outer_loss - outer(emb_NFD - step).outer_loss) / 2e-5
    assert outer(emb_NFD).emb_NFD[1, 2, 3].item() == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_constants_of_a_loss_do_not_follow_the_model() -> None:
    """A proxy of checkpoint t-1 keeps its frozen layers when checkpoint t is restored into the same model."""
    built, examples = model("Frozen"), rows(5, 1)
    loss, params = loss_of(built), dense_params(built)
    assert not any(name.startswith("backbone.first") for name in params)
    assert not any(parameter.requires_grad for parameter in params.values())
    before = loss(params, examples)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(2)
    assert torch.equal(loss(params, examples), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_leaves_the_model_as_it_is(kind: str) -> None:
    built = model(kind)
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    other = {name: parameter + 1 for name, parameter in dense_params(built).items()}
    loss_of(built)(other, rows(5, 1))
    assert equal(built.state_dict(), before)

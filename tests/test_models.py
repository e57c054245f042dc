"""The architectures have the published sizes and initialisation, and all derivatives the method needs."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.func import jvp

from diet_ray.errors import ConfigError
from diet_ray.model_config import BUILT_IN, HeadConfig
from diet_ray.models.backbone import Backbone
from diet_ray.models.base import train_mode
from diet_ray.models.dcn import DCN
from diet_ray.models.dcnv2 import DCNv2
from diet_ray.models.examples import Examples, dense_params, loss_of, predict
from diet_ray.models.finalmlp import FinalMLP
from diet_ray.models.finalnet import FieldGate
from diet_ray.models.mmoe import MMoE
from diet_ray.models.registry import ARCHITECTURES, ModelConfig, build_model
from diet_ray.models.wukong import Wukong

DIM = 32
SMALL: dict[str, dict[str, Any]] = {
    "dcn": {"hidden": (16, 8)},
    "dcnv2": {"hidden": (16, 8), "low_rank": True, "rank": 4},
    "finalnet": {"hidden": (8, 8)},
    "finalmlp": {"hidden1": (16, 8), "hidden2": (16, 8), "gate_hidden": (16, 8)},
    "wukong": {"layers": 2, "half": 3, "projection": 2, "interaction_hidden": (16,), "hidden": (16, 8)},
}
SMALL_HEAD = HeadConfig(experts=2, expert_hidden=(8,), tower_hidden=(4,))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def one_logit(inputs: int) -> int:
    return inputs + 1


def published_logits(name: str, backbone: nn.Module) -> int:
    """Parameters of the part of FuxiCTR's single-logit model that we drop.

    DCN, DCNv2, Wukong: one Linear on the hidden vector. FinalNet: one per block of 64. FinalMLP: bilinear
    fusion of 512 and 256 in two heads, w1.x + w2.y + sum_h x_h' W_h y_h with W_h of 256 x 128.
    """
    if name == "finalnet":
        return 2 * one_logit(64)
    if name == "finalmlp":
        return one_logit(512) + one_logit(256) + 2 * 256 * 128
    return one_logit(backbone.out_features)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "counts"),
    [
        ("dcn", {}, (789_377, 921_345, 1_218_273)),
        ("dcnv2", {}, (615_665, 827_633, 1_663_985)),
        ("dcnv2", {"low_rank": True}, (677_617, 840_945, 1_208_433)),
        ("finalnet", {}, (42_262, 66_890, 122_420)),
        ("finalmlp", {}, (2_760_002, 3_153_474, 4_038_786)),
        ("wukong", {}, (3_509_585, 3_526_545, 3_564_705)),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, options: dict, counts: tuple[int, ...]) -> None:
    for fields, published in zip((4, 8, 17), counts, strict=True):
        backbone = ARCHITECTURES[name](fields, DIM, **options)
        assert parameters(backbone) + published_logits(name, backbone) == published


def test_mmoe_parameter_counts() -> None:
    """FuxiCTR's MMoE on the flattened embeddings, its gates and towers with hidden layers of 128 and 64."""
    for fields, published in zip((4, 8, 17), (1_992_539, 2_565_979, 3_856_219), strict=True):
        sizes = {"expert_hidden": (512, 256, 128), "gate_hidden": (128, 64), "tower_hidden": (128, 64)}
        assert parameters(MMoE(fields * DIM, 3, experts=8, **sizes)) == published


@pytest.fixture(params=list(SMALL))
def model(request: pytest.FixtureRequest) -> nn.Module:
    config = ModelConfig(name=request.param, options=SMALL[request.param], head=SMALL_HEAD)
    return build_model(config, fields=3, dim=4, tasks=2, seed=1).double().eval()


def rows(count: int) -> Examples:
    draw = torch.Generator().manual_seed(2)
    emb_NFD = torch.randn(count, 3, 4, generator=draw, dtype=torch.float64)
    return Examples(emb_NFD, (torch.rand(count, 2, generator=draw) < 0.5).double())


def test_a_row_has_the_same_logits_alone_and_in_a_batch(model: nn.Module) -> None:
    emb_NFD = rows(7).emb_NFD
    torch.testing.assert_close(model(emb_NFD)[3:4], model(emb_NFD[3:4]), rtol=1e-12, atol=1e-14)


def test_forward_mode_agrees_with_reverse_mode(model: nn.Module) -> None:
    loss, params, batch = loss_of(model), dense_params(model), rows(7)
    draw = torch.Generator().manual_seed(3)
    along = {k: torch.randn(p.shape, generator=draw, dtype=p.dtype) for k, p in params.items()}
    forward = jvp(lambda p: loss(p, batch).sum(), (params,), (along,))[1]
    leaves = {k: p.requires_grad_() for k, p in params.items()}
    grads = torch.autograd.grad(loss(leaves, batch).sum(), list(leaves.values()))
    reverse = sum((g * a).sum() for g, a in zip(grads, along.values(), strict=True))
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)


def test_every_parameter_takes_part_and_double_backward_is_finite(model: nn.Module) -> None:
    loss, batch = loss_of(model), rows(64)
    leaves = {k: p.requires_grad_() for k, p in dense_params(model).items()}
    emb = batch.emb_NFD.requires_grad_()
    inner = loss(leaves, Examples(emb, batch.label_NT)).mean()
    grads = torch.autograd.grad(inner, list(leaves.values()), create_graph=True)
    assert all(g.abs().sum() > 0 for g in grads)
    (second,) = torch.autograd.grad(torch.stack([g.square().sum() for g in grads]).sum(), emb)
    assert second.isfinite().all() and second.abs().sum() > 0


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    config = ModelConfig(options=SMALL["dcn"])
    state = torch.get_rng_state()
    a, b, c = (build_model(config, fields=3, dim=4, tasks=2, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_the_names_of_the_built_in_architectures() -> None:
    """They are listed without their classes, for configs that import no PyTorch."""
    assert tuple(ARCHITECTURES) == BUILT_IN


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_linear_layers_start_xavier_normal_with_bias_zero(name: str) -> None:
    """Deviation sqrt(2 / (inputs + outputs)); a field gate starts as the identity instead."""
    built = build_model(ModelConfig(name=name), fields=4, dim=16, tasks=2, seed=0)
    gates = [part.linear for part in built.modules() if isinstance(part, FieldGate)]
    layers = [part for part in built.modules() if isinstance(part, nn.Linear) and part not in gates]
    large = [layer.weight for layer in layers if layer.weight.numel() >= 4_000]
    assert large and all(layer.bias is None or not layer.bias.any() for layer in layers)
    for weight in large:
        assert weight.std().item() == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.1)
        assert abs(weight.mean().item()) < 0.1 * weight.std().item()
        assert weight.abs().max() > 2.5 * weight.std()  # a uniform distribution ends at 1.73


def test_other_parameters_start_as_published() -> None:
    """Cross biases 0; low-rank factors and Y Xavier normal per matrix; contexts of FinalMLP N(0, 0.01)."""

    def deviation(parameter: nn.Parameter) -> float:
        return parameter.detach().std().item()

    torch.manual_seed(0)
    mixture = DCNv2(8, 16, low_rank=True, experts=4, rank=32).cross
    assert deviation(mixture.v[0]) == pytest.approx((2 / (128 + 32)) ** 0.5, rel=0.05)
    assert deviation(mixture.c[0]) == pytest.approx((2 / (32 + 32)) ** 0.5, rel=0.05)
    assert deviation(mixture.u[0]) == pytest.approx((2 / (32 + 128)) ** 0.5, rel=0.05)
    assert not any(bias.any() for bias in [*mixture.biases, *DCN(3, 4).cross.biases])
    y_FK = Wukong(50, 4, projection=40).layers[0].interaction.y_FK
    assert deviation(y_FK) == pytest.approx((2 / (50 + 40)) ** 0.5, rel=0.1)
    context = FinalMLP(2, 4096, hidden1=(2,), hidden2=(2,), gate_hidden=(2,)).select1.context
    assert deviation(context) == pytest.approx(0.01, rel=0.1) and context.shape == (1, 4096)


def test_a_ranking_model_has_one_member() -> None:
    built = build_model(ModelConfig(options=SMALL["dcn"]), fields=3, dim=4, tasks=2, seed=0)
    assert built.members() == [built]


def test_finalnet_gate_starts_at_one() -> None:
    emb_NFD = torch.randn(5, 3, 4)
    built = build_model(ModelConfig(name="finalnet"), fields=3, dim=4, tasks=2, seed=0)
    for gate in (FieldGate(3), built.get_submodule("backbone.gate")):
        assert torch.equal(gate(emb_NFD), emb_NFD)


def test_default_sizes_of_the_head_are_those_of_its_config() -> None:
    """Four experts [128, 64], linear gates, towers [64]."""
    by_default, by_config = MMoE(10, 2), MMoE(10, 2, **HeadConfig().model_dump())
    assert [p.shape for p in by_default.parameters()] == [p.shape for p in by_config.parameters()]
    expert, gate, tower = 10 * 128 + 128 + 128 * 64 + 64, 10 * 4 + 4, 64 * 64 + 64 + 64 + 1
    assert parameters(by_config) == 4 * expert + 2 * (gate + tower)


@pytest.mark.parametrize("name", SMALL)
def test_out_features_is_the_width_of_the_output(name: str) -> None:
    backbone = ARCHITECTURES[name](3, 4, **SMALL[name]).eval()
    assert backbone(torch.randn(5, 3, 4)).shape == (5, backbone.out_features)
    assert isinstance(backbone, Backbone)


@pytest.mark.parametrize(
    ("name", "option", "value", "says"),
    [
        ("dcn", "cross_layers", 0, "cross_layers must be a positive int, not 0"),
        ("dcn", "cross_layers", 2.0, "cross_layers must be a positive int, not 2.0"),
        ("dcn", "cross_layers", True, "cross_layers must be a positive int, not True"),
        ("dcn", "hidden", (), r"hidden must be a list of positive layer widths, not \(\)"),
        ("dcn", "hidden", (8, 0), "hidden must be a list of positive layer widths"),
        ("dcn", "hidden", (8, -4), "hidden must be a list of positive layer widths"),
        ("dcn", "hidden", 64, "hidden must be a list of positive layer widths, not 64"),
        ("dcn", "hidden", "64", "hidden must be a list of positive layer widths, not '64'"),
        ("dcnv2", "cross_layers", -1, "cross_layers must be"),
        ("dcnv2", "experts", 0, "experts must be"),
        ("dcnv2", "rank", 0, "rank must be"),
        ("dcnv2", "hidden", [], "hidden must be"),
        ("dcnv2", "structure", "beside", "structure 'beside' is not one of: parallel, stacked"),
        ("finalnet", "hidden", (), "hidden must be a list of positive"),
        ("finalnet", "hidden", (8, 7), r"hidden must be a list of even layer widths, not \(8, 7\)"),
        ("finalmlp", "hidden1", (), "hidden1 must be"),
        ("finalmlp", "hidden2", (), "hidden2 must be"),
        ("finalmlp", "gate_hidden", (), "gate_hidden must be"),
        ("wukong", "layers", 0, "layers must be"),
        ("wukong", "half", 0, "half must be"),
        ("wukong", "projection", 0, "projection must be"),
        ("wukong", "interaction_hidden", (), "interaction_hidden must be"),
        ("wukong", "hidden", (), "hidden must be"),
    ],
)
def test_an_impossible_size_is_named(name: str, option: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^model {name}: {says}"):
        build_model(ModelConfig(name=name, options={option: value}), fields=3, dim=4, tasks=2, seed=0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("experts", 0),
        ("expert_hidden", ()),
        ("expert_hidden", (0,)),
        ("gate_hidden", (-1,)),
        ("tower_hidden", (0,)),
    ],
)
def test_an_impossible_head_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        HeadConfig(**{key: value})


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        (
            "dnc",
            {},
            "^unknown model 'dnc': use one of dcn, dcnv2, finalnet, finalmlp, wukong, package.mod",
        ),
        ("dcn", {"hiden": (8,)}, "^model dcn has no option 'hiden'; its options: cross_layers, hidden$"),
        ("dcn", {"fields": 3}, "has no option 'fields'"),
    ],
)
def test_an_unknown_architecture_or_option_is_named(name: str, options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_model(ModelConfig(name=name, options=options), fields=3, dim=4, tasks=2, seed=0)


def test_rows_of_examples_are_taken_and_cut_in_order() -> None:
    whole = rows(7)
    assert whole.rows == 7
    pieces = list(whole.chunks(3))
    assert [piece.rows for piece in pieces] == [3, 3, 1]
    for joined, part in zip((torch.cat(parts) for parts in zip(*pieces, strict=True)), whole, strict=True):
        assert torch.equal(joined, part)
    some = whole.take(torch.tensor([4, 0]))
    assert torch.equal(some.emb_NFD, whole.emb_NFD[[4, 0]]) and torch.equal(
        some.label_NT, whole.label_NT[[4, 0]]
    )
    moved = whole.to(torch.device("meta"))
    assert {part.device.type for part in moved} == {"meta"}
    assert [part.shape for part in moved] == [part.shape for part in whole]


def test_predictions_are_made_in_evaluation_mode_and_do_not_depend_on_the_pieces() -> None:
    config = ModelConfig(name="finalnet", options=SMALL["finalnet"], head=SMALL_HEAD)
    built = build_model(config, fields=3, dim=4, tasks=2, seed=1).double()
    emb_NFD = rows(9).emb_NFD
    whole_NT = predict(built.train(), emb_NFD)
    assert not built.training and not whole_NT.requires_grad and whole_NT.shape == (9, 2)
    torch.testing.assert_close(predict(built, emb_NFD, rows=4), whole_NT)
    assert torch.equal(whole_NT, built(emb_NFD))


def test_the_loss_of_a_row_is_the_mean_of_its_tasks_and_sees_running_statistics() -> None:
    config = ModelConfig(name="finalnet", options=SMALL["finalnet"], head=SMALL_HEAD)
    built = build_model(config, fields=3, dim=4, tasks=2, seed=1).double().train()
    built(rows(64).emb_NFD)  # moves the running statistics
    loss, params, batch = loss_of(built), dense_params(built), rows(5)
    probability_NT = built(batch.emb_NFD).sigmoid()
    entropy_NT = -(batch.label_NT * probability_NT.log() + (1 - batch.label_NT) * (1 - probability_NT).log())
    torch.testing.assert_close(loss(params, batch), entropy_NT.mean(1))
    assert not built.training
    before = loss(params, batch)
    built.train()(rows(64).emb_NFD + 1)  # the loss keeps the statistics it was made with
    assert torch.equal(loss_of(built.eval())(params, batch), before) is False
    assert torch.equal(loss(params, batch), before)


def test_a_batch_norm_uses_its_running_statistics_for_one_row_only() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    train_mode(model.eval(), 1)
    assert [part.training for part in model] == [True, False, True]
    train_mode(model, 2)
    assert all(part.training for part in model)


def test_the_smallest_sizes_are_possible() -> None:
    sizes: dict[str, dict[str, Any]] = {
        "dcn": {"cross_layers": 1, "hidden": (1,)},
        "dcnv2": {"cross_layers": 1, "hidden": (1,), "low_rank": True, "experts": 1, "rank": 1},
        "finalnet": {"hidden": (2,)},
        "finalmlp": {"hidden1": (1,), "hidden2": (1,), "gate_hidden": (1,)},
        "wukong": {"layers": 1, "half": 1, "projection": 1, "interaction_hidden": (1,), "hidden": (1,)},
    }
    for name, options in sizes.items():
        head = HeadConfig(experts=1, expert_hidden=(1,), gate_hidden=(1,), tower_hidden=(1,))
        config = ModelConfig(name=name, options=options, head=head)
        assert build_model(config, fields=1, dim=1, tasks=1, seed=0)(torch.randn(3, 1, 1)).shape == (3, 1)

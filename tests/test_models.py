"""The architectures are the published ones, differentiable as the method needs, and open to others."""

import pytest
import torch
from torch import nn
from torch.func import jvp

from diet_ray.errors import ConfigError
from diet_ray.models.examples import Examples, dense_params, loss_of
from diet_ray.models.mmoe import MMoE
from diet_ray.models.registry import ARCHITECTURES, HeadConfig, ModelConfig, build_model

DIM = 32
SMALL = {
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


def test_finalnet_gate_starts_at_one() -> None:
    built = build_model(ModelConfig(name="finalnet"), fields=3, dim=4, tasks=2, seed=0)
    emb_NFD = torch.randn(5, 3, 4)
    torch.testing.assert_close(built.backbone.gate(emb_NFD), emb_NFD)  # type: ignore[operator, union-attr]


def test_a_stacked_dcnv2_builds() -> None:
    options = {"structure": "stacked", "hidden": (8,)}
    built = build_model(ModelConfig(name="dcnv2", options=options), fields=3, dim=4, tasks=2, seed=0)
    assert built(torch.randn(5, 3, 4)).shape == (5, 2)


def test_a_backbone_of_ones_own_by_import_path() -> None:
    config = ModelConfig(name="tests.own_backbone:Wide", options={"outputs": 5})
    assert build_model(config, fields=3, dim=4, tasks=2, seed=0)(torch.randn(6, 3, 4)).shape == (6, 2)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("dnc", {}, "unknown model 'dnc': use one of dcn, dcnv2"),
        ("dcn", {"hiden": (8,)}, "no option 'hiden'; its options: cross_layers, hidden"),
        ("dcnv2", {"structure": "beside"}, "'beside' is not one of: parallel, stacked"),
        ("nowhere.at_all:Net", {}, "cannot be imported"),
        ("tests.own_backbone:WrongShape", {}, r"to \(2, 3, 4\), expected \(2, 8\)"),
        ("tests.own_backbone:NoOutFeatures", {}, "attribute out_features"),
    ],
)
def test_a_wrong_model_is_named(name: str, options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_model(ModelConfig(name=name, options=options), fields=3, dim=4, tasks=2, seed=0)

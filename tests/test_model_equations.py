"""Each architecture equals its paper's equations, written out once more on plain tensors in float64.

The equations read the parameters from the state dict. All parameters and the statistics of batch norms are
random: a layer at its initialisation (a gate of 1, a bias of 0) hides a wrong equation.

Shape suffixes: N rows, F fields, G fields, D embedding dim, X = F * D, H hidden width, E experts, T tasks,
K projection, R rank, O fields out.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diet_ray.model_config import HeadConfig
from diet_ray.models.dcn import DCN
from diet_ray.models.dcnv2 import DCNv2
from diet_ray.models.ensemble import Ensemble
from diet_ray.models.finalmlp import FinalMLP
from diet_ray.models.finalnet import FinalNet
from diet_ray.models.mmoe import MMoE
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.models.wukong import Wukong

ROWS = 7
EPSILON = 1e-5  # of layer and batch norms
State = dict[str, Tensor]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 and evaluation mode with random parameters, means and variances."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in model.double().state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw, dtype=torch.float64))
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=draw, dtype=torch.float64) / 2)
    return model.eval()


def embeddings(fields: int, dim: int, rows: int = ROWS) -> Tensor:
    return torch.randn(rows, fields, dim, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def affine(state: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("oi,ni->no", state[f"{name}.weight"], x) + state[f"{name}.bias"]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.pow(2).mean(-1, keepdim=True)
    return centred / (variance + EPSILON).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def relu_layers(state: State, name: str, x: Tensor, layers: int, *, norm: bool = False) -> Tensor:
    """max(0, W x + b) or max(0, LN(W x + b)), layer after layer."""
    step = 3 if norm else 2  # modules per layer
    for layer in range(layers):
        x = affine(state, f"{name}.{step * layer}", x)
        if norm:
            x = layer_norm(state, f"{name}.{step * layer + 1}", x)
        x = torch.maximum(x, torch.zeros_like(x))
    return x


def softmax(score_NE: Tensor) -> Tensor:
    return score_NE.exp() / score_NE.exp().sum(1, keepdim=True)


@pytest.mark.parametrize(("fields", "dim", "cross_layers"), [(1, 2, 1), (3, 4, 3), (5, 2, 2)])
@pytest.mark.parametrize("hidden", [(6,), (8, 5)])
def test_dcn(fields: int, dim: int, cross_layers: int, hidden: tuple[int, ...]) -> None:
    """x_{l+1} = x0 (x_l' w_l) + b_l + x_l (eq. 3), next to a deep network."""
    model = randomised(DCN(fields, dim, cross_layers=cross_layers, hidden=hidden))
    emb_NFD, state = embeddings(fields, dim), model.state_dict()
    x0 = x = emb_NFD.reshape(ROWS, -1)
    for layer in range(cross_layers):
        product = (x * state[f"cross.weights.{layer}.weight"][0]).sum(1)
        x = x0 * product[:, None] + state[f"cross.biases.{layer}"] + x
    same(model(emb_NFD), torch.cat([x, relu_layers(state, "deep", x0, len(hidden))], 1))


def low_rank_cross(state: State, layer: int, x0: Tensor, x: Tensor) -> Tensor:
    """sum_i G_i(x) x0 * (U_i g(C_i g(V_i' x)) + b) + x with g = tanh and G a softmax, expert by expert."""
    gate_NE = softmax(x @ state["cross.gate.weight"].T)
    total = x
    for expert in range(gate_NE.shape[1]):
        v_XR, c_RR, u_RX = (state[f"cross.{part}.{layer}"][expert] for part in "vcu")
        inner = torch.tanh(torch.tanh(x @ v_XR) @ c_RR)
        total = total + gate_NE[:, expert, None] * x0 * (inner @ u_RX + state[f"cross.biases.{layer}"])
    return total


@pytest.mark.parametrize(("fields", "dim", "cross_layers"), [(1, 3, 1), (3, 4, 3), (4, 2, 2)])
@pytest.mark.parametrize("structure", ["parallel", "stacked"])
@pytest.mark.parametrize("low_rank", [False, True])
def test_dcnv2(fields: int, dim: int, cross_layers: int, structure: Any, low_rank: bool) -> None:
    """x_{l+1} = x0 * (W_l x_l + b_l) + x_l (eq. 1), or the mixture of low-rank experts in place of W_l."""
    sizes: dict[str, Any] = {"hidden": (8, 5), "experts": 3, "rank": 2, "cross_layers": cross_layers}
    model = randomised(DCNv2(fields, dim, structure=structure, low_rank=low_rank, **sizes))
    emb_NFD, state = embeddings(fields, dim), model.state_dict()
    x0 = x = emb_NFD.reshape(ROWS, -1)
    for layer in range(cross_layers):
        if low_rank:
            x = low_rank_cross(state, layer, x0, x)
        else:
            x = x0 * affine(state, f"cross.linears.{layer}", x) + x
    if structure == "stacked":
        same(model(emb_NFD), relu_layers(state, "deep", x, 2))
    else:
        same(model(emb_NFD), torch.cat([x, relu_layers(state, "deep", x0, 2)], 1))


def batch_norm(state: State, name: str, x: Tensor, *, training: bool) -> Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        mean, variance = x.mean(0), (x - x.mean(0)).pow(2).mean(0)
    return (x - mean) / (variance + EPSILON).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def final_block(state: State, name: str, x: Tensor, layers: int, *, training: bool) -> Tensor:
    """h = W x + b; [h2 || h1 * h2] of its halves (h2, h1); batch norm."""
    for layer in range(layers):
        h = affine(state, f"{name}.{2 * layer}.linear", x)
        half = h.shape[1] // 2
        h2, h1 = h[:, :half], h[:, half:]
        x = batch_norm(state, f"{name}.{2 * layer + 1}", torch.cat([h2, h1 * h2], 1), training=training)
    return x


@pytest.mark.parametrize(("fields", "dim", "hidden"), [(1, 2, (4,)), (3, 4, (8, 6)), (5, 2, (4, 4, 4))])
@pytest.mark.parametrize("training", [False, True])
def test_finalnet(fields: int, dim: int, hidden: tuple[int, ...], training: bool) -> None:
    """Block 1 on [E || E * gate(E)], block 2 on E; the gate is linear over the fields, with any weights."""
    model = randomised(FinalNet(fields, dim, hidden=hidden)).train(training)
    emb_NFD = embeddings(fields, dim)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gate_NFD = torch.einsum("fg,ngd->nfd", state["gate.linear.weight"], emb_NFD)
    gate_NFD = gate_NFD + state["gate.linear.bias"][:, None]
    plain_NX, gated_NX = emb_NFD.reshape(ROWS, -1), (emb_NFD * gate_NFD).reshape(ROWS, -1)
    both_NX = torch.cat([plain_NX, gated_NX], 1)
    first = final_block(state, "gated_block", both_NX, len(hidden), training=training)
    second = final_block(state, "plain_block", plain_NX, len(hidden), training=training)
    same(model(emb_NFD), torch.cat([first, second], 1))


def test_finalnet_counts_its_batch_statistics_with_a_momentum_of_a_tenth() -> None:
    model = randomised(FinalNet(2, 3, hidden=(4,))).train()
    emb_NFD, before = embeddings(2, 3), {k: v.clone() for k, v in model.state_dict().items()}
    h = affine(before, "plain_block.0.linear", emb_NFD.reshape(ROWS, -1))
    layer = torch.cat([h[:, :2], h[:, 2:] * h[:, :2]], 1)
    model(emb_NFD)
    after = model.state_dict()
    name = "plain_block.1.running"
    same(after[f"{name}_mean"], 0.9 * before[f"{name}_mean"] + 0.1 * layer.mean(0))
    same(after[f"{name}_var"], 0.9 * before[f"{name}_var"] + 0.1 * layer.var(0))


def selected(state: State, name: str, x: Tensor, layers: int) -> Tensor:
    """x * 2 sigmoid(gate(c)) with the learned constant c."""
    inner = relu_layers(state, f"{name}.gate.0", state[f"{name}.context"], layers)
    return x * 2 / (1 + torch.exp(-affine(state, f"{name}.gate.1", inner)))


@pytest.mark.parametrize(("fields", "dim"), [(1, 2), (3, 4)])
@pytest.mark.parametrize("gate_hidden", [(3,), (5, 4)])
@pytest.mark.parametrize(("hidden1", "hidden2"), [((6,), (5, 3)), ((4, 7), (9,))])
def test_finalmlp(
    fields: int, dim: int, gate_hidden: Sequence[int], hidden1: Sequence[int], hidden2: Sequence[int]
) -> None:
    """Two streams, each an MLP on its own selection of the features."""
    sizes = {"hidden1": hidden1, "hidden2": hidden2, "gate_hidden": gate_hidden}
    model = randomised(FinalMLP(fields, dim, **sizes))
    emb_NFD, state = embeddings(fields, dim), model.state_dict()
    x = emb_NFD.reshape(ROWS, -1)
    first = relu_layers(state, "stream1", selected(state, "select1", x, len(gate_hidden)), len(hidden1))
    second = relu_layers(state, "stream2", selected(state, "select2", x, len(gate_hidden)), len(hidden2))
    same(model(emb_NFD), torch.cat([first, second], 1))


def wukong_layer(state: State, name: str, x_NFD: Tensor, half: int, hidden: int) -> Tensor:
    """LN([FMB(X) || LCB(X)] + residual) with FMB = MLP(LN(flatten(X X' Y))), LCB = W X."""
    product_NFF = torch.einsum("nfd,ngd->nfg", x_NFD, x_NFD)
    projected_NFK = torch.einsum("nfg,gk->nfk", product_NFF, state[f"{name}.interaction.y_FK"])
    flat = layer_norm(state, f"{name}.interaction.norm", projected_NFK.reshape(len(x_NFD), -1))
    inner = relu_layers(state, f"{name}.interaction.mlp.0", flat, hidden)
    fmb = affine(state, f"{name}.interaction.mlp.1", inner).reshape(len(x_NFD), half, x_NFD.shape[2])
    lcb = torch.einsum("of,nfd->nod", state[f"{name}.compression.linear.weight"], x_NFD)
    residual = x_NFD
    if x_NFD.shape[1] != 2 * half:
        weight_OF, bias_O = (state[f"{name}.residual.linear.{part}"] for part in ("weight", "bias"))
        residual = torch.einsum("of,nfd->nod", weight_OF, x_NFD) + bias_O[:, None]
    return layer_norm(state, f"{name}.norm", torch.cat([fmb, lcb], 1) + residual)


@pytest.mark.parametrize(
    ("fields", "half", "layers"),
    [(1, 1, 1), (3, 2, 3), (4, 2, 2), (5, 3, 1)],  # (4, 2): no change of fields
)
@pytest.mark.parametrize("interaction_hidden", [(6,), (7, 5)])
def test_wukong(fields: int, half: int, layers: int, interaction_hidden: tuple[int, ...]) -> None:
    dim, hidden = 3, (8, 4)
    sizes = {"layers": layers, "half": half, "projection": 2, "hidden": hidden}
    model = randomised(Wukong(fields, dim, interaction_hidden=interaction_hidden, **sizes))
    emb_NFD, state = embeddings(fields, dim), model.state_dict()
    x_NFD = emb_NFD
    for layer in range(layers):
        x_NFD = wukong_layer(state, f"layers.{layer}", x_NFD, half, len(interaction_hidden))
    same(model(emb_NFD), relu_layers(state, "deep", x_NFD.reshape(ROWS, -1), 2, norm=True))


def test_wukong_keeps_the_fields_as_residual_where_their_number_stays() -> None:
    names = [Wukong(fields, 3, half=2, layers=2).state_dict().keys() for fields in (3, 4)]
    assert [any("layers.0.residual" in name for name in each) for each in names] == [True, False]
    assert not any("layers.1.residual" in name for each in names for name in each)
    assert not any("compression.linear.bias" in name for each in names for name in each)


def deep_with_output(state: State, name: str, x: Tensor, layers: int) -> Tensor:
    return affine(state, f"{name}.1", relu_layers(state, f"{name}.0", x, layers))


@pytest.mark.parametrize(("experts", "tasks"), [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("gate_hidden", [(), (5,)])
@pytest.mark.parametrize("tower_hidden", [(), (6, 3)])
def test_mmoe(experts: int, tasks: int, gate_hidden: tuple[int, ...], tower_hidden: tuple[int, ...]) -> None:
    """logit_t = h_t(sum_i softmax(g_t(x))_i f_i(x)), task by task and expert by expert."""
    sizes = {"experts": experts, "gate_hidden": gate_hidden, "tower_hidden": tower_hidden}
    model = randomised(MMoE(6, tasks, expert_hidden=(8, 4), **sizes))
    hidden_NH, state = embeddings(6, 1).squeeze(2), model.state_dict()
    logits = []
    for task in range(tasks):
        gate_NE = softmax(deep_with_output(state, f"gates.{task}", hidden_NH, len(gate_hidden)))
        mixed = sum(
            gate_NE[:, expert, None] * relu_layers(state, f"experts.{expert}", hidden_NH, 2)
            for expert in range(experts)
        )
        logits.append(deep_with_output(state, f"towers.{task}", mixed, len(tower_hidden)))
    same(model(hidden_NH), torch.cat(logits, 1))


def small_ensemble(members: int) -> Ensemble:
    head = HeadConfig(experts=2, expert_hidden=(6,), tower_hidden=(4,))
    names = ("dcn", "dcn", "dcnv2")[:members]
    models = [
        build_model(
            ModelConfig(name=name, options={"hidden": (5,)}, head=head), fields=3, dim=2, tasks=2, seed=seed
        )
        for seed, name in enumerate(names)
    ]
    return Ensemble([randomised(model, seed) for seed, model in enumerate(models)])


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_ensemble_averages_logits_and_the_losses_of_its_members(members: int, weighted: bool) -> None:
    """loss = mean over members of sum_n w_n mean_t BCE / sum_n w_n; not the loss of the mean logit."""
    model, emb_NFD = small_ensemble(members), embeddings(3, 2)
    draw = torch.Generator().manual_seed(4)
    label_NT = torch.rand(ROWS, 2, generator=draw, dtype=torch.float64)
    weight_N = torch.rand(ROWS, generator=draw, dtype=torch.float64) + 0.1
    logits = [member.head(member.backbone(emb_NFD)) for member in model.models]
    same(model(emb_NFD), sum(logits) / members)
    losses = []
    for logit_NT in logits:
        probability = 1 / (1 + torch.exp(-logit_NT))
        entropy = -(label_NT * probability.log() + (1 - label_NT) * (1 - probability).log())
        of_row = (entropy[:, 0] + entropy[:, 1]) / 2
        losses.append((of_row * weight_N).sum() / weight_N.sum() if weighted else of_row.sum() / ROWS)
    same(model.loss(emb_NFD, label_NT, weight_N if weighted else None), sum(losses) / members)
    assert model.members() == list(model.models)

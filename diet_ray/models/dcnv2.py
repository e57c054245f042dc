"""DCN V2 (Wang et al. 2021, arXiv 2008.13535), full-rank or as a mixture of low-rank experts.

Shape suffixes: N rows, F fields, D embedding dim, X = F * D, E experts, R rank, H hidden width.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from diet_ray.errors import ConfigError
from diet_ray.models.mlp import mlp
from diet_ray.models.sizes import check_counts, check_layers


class CrossV2(nn.Module):
    """x <- x + x0 * (W x + b), `layers` times; [N, X] -> [N, X] (eq. 1)."""

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(layers))

    def forward(self, x0_NX: Tensor) -> Tensor:
        x_NX = x0_NX
        for linear in self.linears:
            x_NX = x_NX + x0_NX * linear(x_NX)
        return x_NX


class CrossMixture(nn.Module):
    """x <- x + sum_e g_e(x) x0 * (U_e tanh(C_e tanh(V_e' x)) + b), `layers` times; [N, X] -> [N, X].

    The gates g are a softmax of a linear map of x without bias, which the layers share, as in FuxiCTR.
    """

    def __init__(self, inputs: int, layers: int, experts: int, rank: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, experts, bias=False)
        self.v = nn.ParameterList(_normal(experts, inputs, rank) for _ in range(layers))
        self.c = nn.ParameterList(_normal(experts, rank, rank) for _ in range(layers))
        self.u = nn.ParameterList(_normal(experts, rank, inputs) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(inputs)) for _ in range(layers))

    def forward(self, x0_NX: Tensor) -> Tensor:
        x_NX = x0_NX
        for v_EXR, c_ERR, u_ERX, bias_X in zip(self.v, self.c, self.u, self.biases, strict=True):
            inner_ENR = torch.matmul(torch.matmul(x_NX, v_EXR).tanh(), c_ERR).tanh()
            expert_ENX = x0_NX * (torch.matmul(inner_ENR, u_ERX) + bias_X)
            gate_NE = self.gate(x_NX).softmax(1)
            x_NX = x_NX + torch.einsum("ne,enx->nx", gate_NE, expert_ENX)
        return x_NX


def _normal(experts: int, inputs: int, outputs: int) -> nn.Parameter:
    """A matrix [inputs, outputs] per expert, Xavier normal."""
    deviation = (2 / (inputs + outputs)) ** 0.5
    return nn.Parameter(torch.randn(experts, inputs, outputs) * deviation)


class DCNv2(nn.Module):
    """A cross network and an MLP; embeddings [N, F, D] -> [N, H].

    Args:
        fields: F.
        dim: D.
        structure: "parallel", where both see the embeddings and the output is [cross || deep], or "stacked",
            where the MLP sees the output of the cross network.
        cross_layers: Number of cross layers.
        hidden: Layer widths of the MLP.
        low_rank: Replace each full matrix by a mixture of low-rank experts.
        experts: Experts of each layer; with `low_rank` only.
        rank: Rank of an expert; with `low_rank` only.

    Raises:
        ConfigError: A size is not positive, or there is no such structure.
    """

    def __init__(
        self,
        fields: int,
        dim: int,
        *,
        structure: Literal["parallel", "stacked"] = "parallel",
        cross_layers: int = 3,
        hidden: Sequence[int] = (500, 500, 500),
        low_rank: bool = False,
        experts: int = 4,
        rank: int = 32,
    ) -> None:
        super().__init__()
        if structure not in ("parallel", "stacked"):
            raise ConfigError(f"structure {structure!r} is not one of: parallel, stacked")
        check_counts(cross_layers=cross_layers, experts=experts, rank=rank)
        check_layers(hidden=hidden)
        inputs = fields * dim
        self.cross: nn.Module = CrossV2(inputs, cross_layers)
        if low_rank:
            self.cross = CrossMixture(inputs, cross_layers, experts, rank)
        self.deep = mlp(inputs, hidden)
        self.stacked = structure == "stacked"
        self.out_features = hidden[-1] if self.stacked else inputs + hidden[-1]

    def forward(self, emb_NFD: Tensor) -> Tensor:
        x_NX = emb_NFD.flatten(1)
        crossed_NX = self.cross(x_NX)
        if self.stacked:
            return self.deep(crossed_NX)
        return torch.cat([crossed_NX, self.deep(x_NX)], 1)

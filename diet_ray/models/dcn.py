"""Deep & Cross Network (Wang et al. 2017, arXiv 1708.05123).

Shape suffixes: N rows, F fields, D embedding dim, X = F * D, H hidden width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diet_ray.models.mlp import mlp
from diet_ray.models.sizes import check_counts, check_layers


class Cross(nn.Module):
    """x <- x + x0 (w . x) + b, `layers` times; [N, X] -> [N, X] (eq. 3)."""

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(inputs, 1, bias=False) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(inputs)) for _ in range(layers))

    def forward(self, x0_NX: Tensor) -> Tensor:
        x_NX = x0_NX
        for weight, bias_X in zip(self.weights, self.biases, strict=True):
            x_NX = x_NX + x0_NX * weight(x_NX) + bias_X
        return x_NX


class DCN(nn.Module):
    """A cross network and an MLP in parallel; embeddings [N, F, D] -> [cross || deep] [N, H].

    Args:
        fields: F.
        dim: D.
        cross_layers: Number of cross layers.
        hidden: Layer widths of the MLP.

    Raises:
        ConfigError: A size is not positive.
    """

    def __init__(
        self, fields: int, dim: int, *, cross_layers: int = 3, hidden: Sequence[int] = (1024, 512, 256)
    ) -> None:
        super().__init__()
        check_counts(cross_layers=cross_layers)
        check_layers(hidden=hidden)
        inputs = fields * dim
        self.cross = Cross(inputs, cross_layers)
        self.deep = mlp(inputs, hidden)
        self.out_features = inputs + hidden[-1]

    def forward(self, emb_NFD: Tensor) -> Tensor:
        x_NX = emb_NFD.flatten(1)
        return torch.cat([self.cross(x_NX), self.deep(x_NX)], 1)

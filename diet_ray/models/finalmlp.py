"""FinalMLP: two streams with feature selection (Mao et al., AAAI 2023, arXiv 2304.00902).

The streams are concatenated: the paper's bilinear fusion gives one logit, and would cost 4.2 M weights at 64
outputs. The contexts of the feature selection are learned constants: rows of the memory have no ids to select
a context field by.

Shape suffixes: N rows, F fields, D embedding dim, X = F * D, H hidden width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diet_ray.models.mlp import mlp
from diet_ray.models.sizes import check_layers


class FeatureSelection(nn.Module):
    """x * 2 sigmoid(MLP(context)) with a learned constant as context; [N, X] -> [N, X]."""

    def __init__(self, inputs: int, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        # Started at zero, as published, every ReLU of the gate is dead and only its last bias learns.
        self.context = nn.Parameter(0.01 * torch.randn(1, dim))
        self.gate = nn.Sequential(mlp(dim, hidden), nn.Linear(hidden[-1], inputs))

    def forward(self, x_NX: Tensor) -> Tensor:
        return x_NX * 2 * self.gate(self.context).sigmoid()


class FinalMLP(nn.Module):
    """Two MLPs, each on its own selection of the features; [N, F, D] -> [stream 1 || stream 2] [N, H].

    Args:
        fields: F.
        dim: D.
        hidden1: Layer widths of stream 1.
        hidden2: Layer widths of stream 2.
        gate_hidden: Layer widths of each feature selection below its sigmoid.

    Raises:
        ConfigError: A layer width is not positive.
    """

    def __init__(
        self,
        fields: int,
        dim: int,
        *,
        hidden1: Sequence[int] = (1024, 512),
        hidden2: Sequence[int] = (1024, 512, 256),
        gate_hidden: Sequence[int] = (1024, 512),
    ) -> None:
        super().__init__()
        check_layers(hidden1=hidden1, hidden2=hidden2, gate_hidden=gate_hidden)
        inputs = fields * dim
        self.select1 = FeatureSelection(inputs, dim, gate_hidden)
        self.select2 = FeatureSelection(inputs, dim, gate_hidden)
        self.stream1, self.stream2 = mlp(inputs, hidden1), mlp(inputs, hidden2)
        self.out_features = hidden1[-1] + hidden2[-1]

    def forward(self, emb_NFD: Tensor) -> Tensor:
        x_NX = emb_NFD.flatten(1)
        return torch.cat([self.stream1(self.select1(x_NX)), self.stream2(self.select2(x_NX))], 1)

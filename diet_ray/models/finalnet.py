"""FINAL: factorized interaction layers (Zhu et al., SIGIR 2023).

The paper's self-distillation between its two branches needs a logit per branch. Under a common multi-task
head there is none, so that loss is left out.

Shape suffixes: N rows, F fields, D embedding dim, H hidden width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FactorizedInteraction(nn.Module):
    """h = W x + b, (h2, h1) = halves of h; [N, inputs] -> [h2 || h1 * h2] [N, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h2, h1 = self.linear(x).chunk(2, dim=1)
        return torch.cat([h2, h1 * h2], 1)


class FieldGate(nn.Module):
    """Scale each field by a linear map over the fields, coordinate by coordinate; [N, F, D] -> same.

    The gate is 1 at initialisation.
    """

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.linear = nn.Linear(fields, fields)
        self.start_as_identity()

    def start_as_identity(self) -> None:
        nn.init.zeros_(self.linear.weight)
        nn.init.ones_(self.linear.bias)

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return emb_NFD * self.linear(emb_NFD.transpose(1, 2)).transpose(1, 2)


def block(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Interaction layers, each followed by a batch norm."""
    layers: list[nn.Module] = []
    for outputs in hidden:
        layers += [FactorizedInteraction(inputs, outputs), nn.BatchNorm1d(outputs)]
        inputs = outputs
    return nn.Sequential(*layers)


class FinalNet(nn.Module):
    """Two blocks, one on [E || gated E], one on E; [N, F, D] -> [N, H]."""

    def __init__(self, fields: int, dim: int, *, hidden: Sequence[int] = (64, 64, 64)) -> None:
        super().__init__()
        self.gate = FieldGate(fields)
        self.gated_block = block(2 * fields * dim, hidden)
        self.plain_block = block(fields * dim, hidden)
        self.out_features = 2 * hidden[-1]

    def forward(self, emb_NFD: Tensor) -> Tensor:
        gated_NX = torch.cat([emb_NFD, self.gate(emb_NFD)], 1).flatten(1)
        return torch.cat([self.gated_block(gated_NX), self.plain_block(emb_NFD.flatten(1))], 1)

"""FINAL: factorized interaction layers (Zhu et al., SIGIR 2023, doi 10.1145/3539618.3591988).

The paper's self-distillation between its two blocks needs a logit per block. Under a common multi-task head
there is none, so that loss is left out.

Shape suffixes: N rows, F fields, D embedding dim, H hidden width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diet_ray.errors import ConfigError
from diet_ray.models.sizes import check_layers


class FactorizedInteraction(nn.Module):
    """h = W x + b, (h2, h1) = halves of h; [N, inputs] -> [h2 || h1 * h2] [N, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h2, h1 = self.linear(x).chunk(2, dim=1)
        return torch.cat([h2, h1 * h2], 1)


class FieldGate(nn.Module):
    """e_f * (sum_g W_fg e_g + b_f), coordinate by coordinate; [N, F, D] -> [N, F, D].

    Starts as the identity: W = 0, b = 1.
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
    """Factorized interaction layers, each followed by a batch norm; [N, inputs] -> [N, hidden[-1]]."""
    layers: list[nn.Module] = []
    for outputs in hidden:
        layers += [FactorizedInteraction(inputs, outputs), nn.BatchNorm1d(outputs)]
        inputs = outputs
    return nn.Sequential(*layers)


class FinalNet(nn.Module):
    """Two blocks, one on [E || gated E], one on E; [N, F, D] -> [block 1 || block 2] [N, H].

    Args:
        fields: F.
        dim: D.
        hidden: Layer widths of each block, even numbers: half of a layer is products.

    Raises:
        ConfigError: A layer width is not positive and even.
    """

    def __init__(self, fields: int, dim: int, *, hidden: Sequence[int] = (64, 64, 64)) -> None:
        super().__init__()
        check_layers(hidden=hidden)
        if any(width % 2 for width in hidden):
            raise ConfigError(f"hidden must be a list of even layer widths, not {hidden!r}")
        self.gate = FieldGate(fields)
        self.gated_block = block(2 * fields * dim, hidden)
        self.plain_block = block(fields * dim, hidden)
        self.out_features = 2 * hidden[-1]

    def forward(self, emb_NFD: Tensor) -> Tensor:
        gated_NX = torch.cat([emb_NFD, self.gate(emb_NFD)], 1).flatten(1)
        return torch.cat([self.gated_block(gated_NX), self.plain_block(emb_NFD.flatten(1))], 1)

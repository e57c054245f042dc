"""Wukong (Zhang et al. 2024, arXiv 2403.02545).

The paper leaves the normalisation in the MLP on top open. It is a layer norm here, which keeps rows
independent while training.

Shape suffixes: N rows, F fields in, O fields out, D embedding dim, K projection, H hidden width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diet_ray.models.mlp import mlp
from diet_ray.models.sizes import check_counts, check_layers


class FactorizationMachineBlock(nn.Module):
    """FMB(X) = MLP(LN(flatten(X X' Y))) with a free Y [F, K]; [N, F, D] -> [N, O, D]."""

    def __init__(
        self, fields: int, out_fields: int, dim: int, projection: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        self.y_FK = nn.Parameter(torch.randn(fields, projection) * (2 / (fields + projection)) ** 0.5)
        self.norm = nn.LayerNorm(fields * projection)
        self.mlp = nn.Sequential(mlp(fields * projection, hidden), nn.Linear(hidden[-1], out_fields * dim))
        self.dim = dim

    def forward(self, x_NFD: Tensor) -> Tensor:
        interaction_NFK = torch.bmm(x_NFD, torch.matmul(x_NFD.transpose(1, 2), self.y_FK))
        return self.mlp(self.norm(interaction_NFK.flatten(1))).unflatten(1, (-1, self.dim))


class OverFields(nn.Module):
    """W X + b, a linear map from F to O fields; [N, F, D] -> [N, O, D]. Without bias it is the LCB."""

    def __init__(self, fields: int, out_fields: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(fields, out_fields, bias=bias)

    def forward(self, x_NFD: Tensor) -> Tensor:
        return self.linear(x_NFD.transpose(1, 2)).transpose(1, 2)


class WukongLayer(nn.Module):
    """X <- LN([FMB(X) || LCB(X)] + X); [N, F, D] -> [N, O, D] with O = 2 * `half`.

    Where F is not O, a linear map over the fields takes the place of X in the residual.
    """

    def __init__(self, fields: int, dim: int, half: int, projection: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.interaction = FactorizationMachineBlock(fields, half, dim, projection, hidden)
        self.compression = OverFields(fields, half, bias=False)
        same = fields == 2 * half
        self.residual: nn.Module = nn.Identity() if same else OverFields(fields, 2 * half, bias=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_NFD: Tensor) -> Tensor:
        both_NOD = torch.cat([self.interaction(x_NFD), self.compression(x_NFD)], 1)
        return self.norm(both_NOD + self.residual(x_NFD))


class Wukong(nn.Module):
    """Interaction layers and an MLP on the flattened output of the last one; [N, F, D] -> [N, H].

    Args:
        fields: F.
        dim: D.
        layers: Number of interaction layers.
        half: Fields that the FMB of a layer puts out, and as many its LCB.
        projection: K, the width of the FMB's low-rank projection Y.
        interaction_hidden: Layer widths of the MLP in each FMB.
        hidden: Layer widths of the MLP on top, each with a layer norm.

    Raises:
        ConfigError: A size is not positive.
    """

    def __init__(
        self,
        fields: int,
        dim: int,
        *,
        layers: int = 3,
        half: int = 40,
        projection: int = 8,
        interaction_hidden: Sequence[int] = (512, 256),
        hidden: Sequence[int] = (512, 256),
    ) -> None:
        super().__init__()
        check_counts(layers=layers, half=half, projection=projection)
        check_layers(interaction_hidden=interaction_hidden, hidden=hidden)
        counts = [fields] + [2 * half] * (layers - 1)
        self.layers = nn.Sequential(
            *(WukongLayer(count, dim, half, projection, interaction_hidden) for count in counts)
        )
        self.deep = mlp(2 * half * dim, hidden, layer_norm=True)
        self.out_features = hidden[-1]

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.deep(self.layers(emb_NFD).flatten(1))

"""The dense part of a reference: several models over the same embeddings.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from diet_ray.models.base import DenseModel


class Ensemble(DenseModel):
    """The mean of the members' logits; [N, F, D] -> [N, T].

    Each member has a loss of its own. The embeddings below then serve every member and are fitted to none in
    particular, and a candidate, which is none of them, does better on such embeddings (docs/tried.md).
    """

    def __init__(self, members: Sequence[DenseModel]) -> None:
        super().__init__()
        self.models = nn.ModuleList(members)

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return torch.stack([member(emb_NFD) for member in self.members()]).mean(0)

    def loss(self, emb_NFD: Tensor, label_NT: Tensor, weight_N: Tensor | None = None) -> Tensor:
        """Return the mean of the members' losses, a scalar; arguments as for DenseModel.loss."""
        return torch.stack([member.loss(emb_NFD, label_NT, weight_N) for member in self.members()]).mean()

    def members(self) -> list[DenseModel]:
        return [cast(DenseModel, member) for member in self.models]

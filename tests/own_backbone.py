"""Backbones a user might bring, one sound and two not."""

from torch import Tensor, nn


class Wide(nn.Module):
    def __init__(self, fields: int, dim: int, *, outputs: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(fields * dim, outputs)
        self.out_features = outputs

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.linear(emb_NFD.flatten(1))


class WrongShape(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return emb_NFD


class NoOutFeatures(nn.Module):
    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()


class Exploding(Wide):
    """Runs out of memory when trained."""

    def forward(self, emb_NFD: Tensor) -> Tensor:
        if self.training:
            raise MemoryError("no room for this")
        return super().forward(emb_NFD)

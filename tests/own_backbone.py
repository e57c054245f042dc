"""Backbones a user might bring: sound ones, one of the wrong shape and one that runs out of memory."""

from typing import Any

import torch
from torch import Tensor, nn


class Wide(nn.Module):
    def __init__(self, fields: int, dim: int, *, outputs: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(fields * dim, outputs)
        self.out_features = outputs

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.linear(emb_NFD.flatten(1))


class AnyOptions(Wide):
    """Takes whatever options there are."""

    def __init__(self, fields: int, dim: int, **options: Any) -> None:
        super().__init__(fields, dim)
        self.options = options


class OtherNames(Wide):
    """Fields and dim go by position, so their names are the user's own; `dim` is an option here."""

    def __init__(self, count: int, size: int, /, dim: int = 8) -> None:
        super().__init__(count, size, outputs=dim)


class TwoLayers(nn.Module):
    """The common part of the ones below."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.out_features = fields * dim
        self.first = nn.Linear(self.out_features, self.out_features)
        self.second = nn.Linear(self.out_features, self.out_features)

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.second(self.first(emb_NFD.flatten(1)))


class Frozen(TwoLayers):
    """Its first layer has weights from elsewhere and keeps them."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(self.out_features))
            self.first.bias.fill_(0.5)
        self.first.requires_grad_(False)


class Unused(TwoLayers):
    """Its first layer takes no part."""

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.second(emb_NFD.flatten(1))


class Shared(TwoLayers):
    """One layer, used twice."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        self.second = self.first


class Tied(TwoLayers):
    """Two layers with one weight, a parameter under two names, and a buffer that is a view of another."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        self.second.weight = self.first.weight
        self.shift = self.again = nn.Parameter(torch.ones(self.out_features))
        self.register_buffer("offsets", torch.ones(2, self.out_features))
        self.register_buffer("offset", self.offsets[1])

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return super().forward(emb_NFD) * self.again + self.shift + self.offset


class Normed(Wide):
    """A batch norm and a dropout: training mode differs from evaluation mode."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        self.norm, self.dropout = nn.BatchNorm1d(8), nn.Dropout(0.5)

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.dropout(self.norm(super().forward(emb_NFD)))


class WrongShape(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return emb_NFD


class Counting(Wide):
    """Replaces a buffer while training, and changes another in place."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        self.register_buffer("replaced", torch.zeros(1))
        self.register_buffer("changed", torch.zeros(1))

    def forward(self, emb_NFD: Tensor) -> Tensor:
        if self.training:
            self.replaced = self.replaced + 1
            self.changed += 1
        return super().forward(emb_NFD)


class Exploding(Wide):
    """Runs out of memory when trained on more than a few rows."""

    def forward(self, emb_NFD: Tensor) -> Tensor:
        if self.training and len(emb_NFD) > 8:
            raise MemoryError("no room for this")
        return super().forward(emb_NFD)

"""Backbones a user might bring that break a rule of diet_ray.models.backbone.Backbone, one rule each."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.own_backbone import Wide

INSTANCE = Wide(3, 4)
NUMBER = 8


class PlainClass:
    def __init__(self, fields: int, dim: int) -> None:
        self.out_features = 8


def gives_a_function(fields: int, dim: int) -> Any:
    return lambda emb_NFD: emb_NFD.flatten(1)


class NoArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()


class NeedsDepth(Wide):
    def __init__(self, fields: int, dim: int, *, depth: int) -> None:
        super().__init__(fields, dim)


class Asserts(Wide):
    def __init__(self, fields: int, dim: int) -> None:
        assert dim % 3 == 0, "dim must be a multiple of 3"
        super().__init__(fields, dim)


class Raises(Wide):
    """Any error, raised in the constructor."""

    def __init__(self, fields: int, dim: int, *, error: str = "RuntimeError") -> None:
        raise {"RuntimeError": RuntimeError, "KeyError": KeyError, "OSError": OSError}[error]("of the user")


class ForgetsSuper(nn.Module):
    def __init__(self, fields: int, dim: int) -> None:
        self.linear = nn.Linear(fields * dim, 8)


class NoOutFeatures(nn.Module):
    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()


class OutFeatures(Wide):
    def __init__(self, fields: int, dim: int, *, value: Any = 8.0) -> None:
        super().__init__(fields, dim)
        self.out_features = value


class OutFeaturesLayer(Wide):
    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        del self.out_features
        self.out_features = nn.Linear(2, 2)


class NoForward(nn.Module):
    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.out_features = 8


class Returns(Wide):
    """Any type, returned by forward."""

    def __init__(self, fields: int, dim: int, *, kind: str = "tuple", only_in_training: bool = False) -> None:
        super().__init__(fields, dim)
        self.kind, self.only_in_training = kind, only_in_training

    def forward(self, emb_NFD: Tensor) -> Any:
        hidden_NH = super().forward(emb_NFD)
        if self.only_in_training and not self.training:
            return hidden_NH
        returned = {"tuple": (hidden_NH, None), "dict": {"hidden": hidden_NH}, "list": [hidden_NH]}
        return returned.get(self.kind)


class WrongOutFeatures(Wide):
    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        self.out_features = 9


class WrongInput(Wide):
    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(fields, dim)
        self.linear = nn.Linear(5, 8)


class Misspells(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.liner(emb_NFD.flatten(1))


class DoublePrecision(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return super().forward(emb_NFD).double()


class WholeNumbers(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return super().forward(emb_NFD).long()


class NotFinite(Wide):
    def __init__(self, fields: int, dim: int, *, only_in_training: bool = False) -> None:
        super().__init__(fields, dim)
        self.only_in_training = only_in_training

    def forward(self, emb_NFD: Tensor) -> Tensor:
        hidden_NH = super().forward(emb_NFD)
        return hidden_NH if self.only_in_training and not self.training else hidden_NH / 0


class Squeezes(Wide):
    """Right for a batch, wrong for one row."""

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return super().forward(emb_NFD).squeeze()


class MixesRows(nn.Module):
    """Attention over the rows of a batch: `batch_first` was forgotten."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(dim, 1, 8, dropout=0.0)
        self.out_features = fields * dim

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.attention(emb_NFD).flatten(1)


class AlwaysDrops(Wide):
    """A dropout that is active in evaluation mode."""

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(emb_NFD))


class Detaches(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return super().forward(emb_NFD.detach())


class NoGradient(Wide):
    @torch.no_grad()
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return super().forward(emb_NFD)


class Overwrites(Wide):
    """Changes in place what its own derivative needs."""

    def forward(self, emb_NFD: Tensor) -> Tensor:
        gate_NH = super().forward(emb_NFD).sigmoid()
        return gate_NH.mul_(2)


class NoForwardMode(nn.Module):
    """In evaluation mode the encoder takes a fast path that has no forward-mode derivative."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(dim, 1, 8, batch_first=True)
        self.out_features = fields * dim

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.attention(emb_NFD).flatten(1)


class NotDifferentiable(torch.autograd.Function):
    """The identity, without a derivative."""

    @staticmethod
    def forward(context: Any, hidden_NH: Tensor) -> Tensor:
        return hidden_NH.clone()

    @staticmethod
    def backward(context: Any, gradient_NH: Tensor) -> Tensor:
        raise RuntimeError("derivative is not implemented")


class OnceDifferentiable(torch.autograd.Function):
    """The identity, with a gradient and a forward-mode derivative, but no second derivative."""

    @staticmethod
    def forward(hidden_NH: Tensor) -> Tensor:
        return hidden_NH.clone()

    @staticmethod
    def setup_context(context: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(context: Any, gradient_NH: Tensor) -> Tensor:
        return NotDifferentiable.apply(gradient_NH)

    @staticmethod
    def jvp(context: Any, tangent_NH: Tensor) -> Tensor:
        return tangent_NH


class NoSecondOrder(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        return OnceDifferentiable.apply(super().forward(emb_NFD))


class PartlyNotFinite(Wide):
    def forward(self, emb_NFD: Tensor) -> Tensor:
        hidden_NH = super().forward(emb_NFD)
        return torch.cat([hidden_NH[:, :7], hidden_NH[:, 7:] / 0], 1)


class DependsOnBatch(Wide):
    """Constant outputs, one of which differs by a share of the largest between a batch and a row alone."""

    def __init__(self, fields: int, dim: int, *, share: float, largest: float = 1000.0) -> None:
        super().__init__(fields, dim)
        self.share, self.largest = share, largest

    def forward(self, emb_NFD: Tensor) -> Tensor:
        hidden_NH = 0 * super().forward(emb_NFD)
        hidden_NH[:, 1] += self.largest * (1 + (self.share if len(emb_NFD) == 1 else 0))
        return hidden_NH

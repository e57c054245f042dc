"""The dense part of a recommender: a backbone under the common multi-task head."""

from torch import Tensor, nn

from diet_ray.models.examples import example_loss
from diet_ray.models.finalnet import FieldGate
from diet_ray.models.mmoe import MMoE


class DenseModel(nn.Module):
    """Embeddings [N, F, D] -> logits [N, T]."""

    def loss(self, emb_NFD: Tensor, label_NT: Tensor, weight_N: Tensor | None = None) -> Tensor:
        """Mean loss of the rows, weighted where weights are given, against hard or soft labels; a scalar."""
        loss_N = example_loss(self(emb_NFD), label_NT)
        return loss_N.mean() if weight_N is None else (loss_N * weight_N).sum() / weight_N.sum()

    def members(self) -> list["DenseModel"]:
        """The models that learn side by side in this one."""
        return [self]


class RankingModel(DenseModel):
    """A backbone and the head above it."""

    def __init__(self, backbone: nn.Module, head: MMoE) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.apply(_initialise)

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.head(self.backbone(emb_NFD))


def _initialise(module: nn.Module) -> None:
    """Linear layers Xavier normal with bias 0, as in FuxiCTR; parents are visited after their children."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, FieldGate):
        module.start_as_identity()

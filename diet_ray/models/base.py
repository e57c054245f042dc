"""The dense part of a recommender: a backbone under the common multi-task head.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from torch import Tensor, nn

from diet_ray.models.examples import example_loss
from diet_ray.models.finalnet import FieldGate
from diet_ray.models.mmoe import MMoE


class DenseModel(nn.Module):
    """Embeddings [N, F, D] -> logits [N, T]."""

    def loss(self, emb_NFD: Tensor, label_NT: Tensor, weight_N: Tensor | None = None) -> Tensor:
        """Return the mean loss of the rows as a scalar.

        Args:
            emb_NFD: Embeddings.
            label_NT: Hard {0, 1} or soft (0, 1) labels.
            weight_N: Weights of the rows in the mean; None: all alike.
        """
        loss_N = example_loss(self(emb_NFD), label_NT)
        return loss_N.mean() if weight_N is None else (loss_N * weight_N).sum() / weight_N.sum()

    def members(self) -> list["DenseModel"]:
        """The models that this one is made of, each trained by a loss of its own."""
        return [self]


class RankingModel(DenseModel):
    """A backbone (diet_ray.models.backbone.Backbone) and the head above it."""

    def __init__(self, backbone: nn.Module, head: MMoE) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.apply(_initialise)

    def forward(self, emb_NFD: Tensor) -> Tensor:
        return self.head(self.backbone(emb_NFD))


def train_mode(model: nn.Module, rows: int) -> None:
    """Put `model` into training mode for a batch of `rows`.

    One row has no variance, so on a batch of one row batch norms use their running statistics.
    """
    model.train()
    if rows == 1:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _initialise(module: nn.Module) -> None:
    """Linear layers Xavier normal with bias 0, as in FuxiCTR; parents are visited after their children.

    A frozen layer keeps its weights, which may have been trained elsewhere.
    """
    if isinstance(module, nn.Linear):
        if module.weight.requires_grad:
            nn.init.xavier_normal_(module.weight)
        if module.bias is not None and module.bias.requires_grad:
            nn.init.zeros_(module.bias)
    if isinstance(module, FieldGate):
        module.start_as_identity()

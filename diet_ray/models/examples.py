"""Examples in embedding space: the one currency between scorer, distiller, baselines and candidates.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits

Params = dict[str, Tensor]


class Examples(NamedTuple):
    """Rows that bypass the embedding tables."""

    emb_NFD: Tensor
    label_NT: Tensor  # hard {0, 1} or soft (0, 1)

    def take(self, rows: Tensor | slice) -> "Examples":
        return Examples(self.emb_NFD[rows], self.label_NT[rows])

    def to(self, device: torch.device) -> "Examples":
        return Examples(self.emb_NFD.to(device), self.label_NT.to(device))

    @property
    def rows(self) -> int:
        return self.emb_NFD.shape[0]

    def chunks(self, rows: int) -> Iterator["Examples"]:
        for start in range(0, self.rows, rows):
            yield self.take(slice(start, start + rows))


LossPerExample = Callable[[Params, Examples], Tensor]


def example_loss(logit_NT: Tensor, label_NT: Tensor) -> Tensor:
    """Binary cross-entropy of logits against hard or soft labels, mean over tasks; returns [N]."""
    return binary_cross_entropy_with_logits(logit_NT, label_NT, reduction="none").mean(1)


def dense_params(model: nn.Module) -> Params:
    """Detached copies of the dense parameters, ready to be differentiated or stepped away from."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def loss_of(model: nn.Module) -> LossPerExample:
    """Return the loss per example of `model` as a function of its parameters.

    The network is evaluated in evaluation mode: a batch norm in training mode would make a row's loss,
    hence its influence, depend on the rows beside it. Its running statistics enter as constants.
    """
    model.eval()
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}

    def loss(params: Params, examples: Examples) -> Tensor:
        logit_NT = functional_call(model, (params, buffers), (examples.emb_NFD,))
        return example_loss(logit_NT, examples.label_NT)

    return loss


@torch.no_grad()
def predict(model: nn.Module, emb_NFD: Tensor, rows: int = 8192) -> Tensor:
    """Logits [N, T] of `model` in evaluation mode, computed `rows` at a time."""
    model.eval()
    return torch.cat([model(chunk) for chunk in emb_NFD.split(rows)])

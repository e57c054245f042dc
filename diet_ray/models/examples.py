"""Examples in embedding space: what scorer, distiller, baselines and candidates exchange.

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
    """Rows that need no embedding table."""

    emb_NFD: Tensor
    label_NT: Tensor  # hard {0, 1} or soft (0, 1)

    def take(self, row_N: Tensor | slice) -> "Examples":
        """The rows at these indices."""
        return Examples(self.emb_NFD[row_N], self.label_NT[row_N])

    def to(self, device: torch.device) -> "Examples":
        return Examples(self.emb_NFD.to(device), self.label_NT.to(device))

    @property
    def rows(self) -> int:
        """N."""
        return self.emb_NFD.shape[0]

    def chunks(self, rows: int) -> Iterator["Examples"]:
        """Yield the rows in order, `rows` at a time; the last piece may be shorter."""
        for start in range(0, self.rows, rows):
            yield self.take(slice(start, start + rows))


LossPerExample = Callable[[Params, Examples], Tensor]


def example_loss(logit_NT: Tensor, label_NT: Tensor) -> Tensor:
    """Binary cross-entropy of logits against hard or soft labels, mean over tasks; returns [N]."""
    return binary_cross_entropy_with_logits(logit_NT, label_NT, reduction="none").mean(1)


def dense_params(model: nn.Module) -> Params:
    """Detached copies of the parameters that are trained, ready to be differentiated or stepped away from.

    Frozen ones are not among them: `loss_of` takes them as constants. A tied parameter is there once.
    """
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def loss_of(model: nn.Module) -> LossPerExample:
    """Return the loss per example of `model`, [N], as a function of its parameters (`dense_params`).

    The network is put into evaluation mode: a batch norm in training mode would make a row's loss, hence
    its influence, depend on the other rows of the batch. Its running statistics enter as constants, and so
    do frozen parameters.
    """
    model.eval()
    trained, constants = _places(model)

    def loss(params: Params, examples: Examples) -> Tensor:
        placed = {place: params[name] for place, name in trained.items()}
        # PyTorch's own handling of tied weights leaves `params` in a module that is used under two names.
        logit_NT = functional_call(model, (placed, constants), (examples.emb_NFD,), tie_weights=False)
        return example_loss(logit_NT, examples.label_NT)

    return loss


def _places(model: nn.Module) -> tuple[dict[str, str], Params]:
    """Where a model keeps its tensors, each module counted once.

    Returns:
        place -> name in `dense_params` of each parameter that is trained; several places if it is tied.
        place -> copy of each tensor that is constant: buffers and frozen parameters.
    """
    trained: dict[str, str] = {}
    constants: Params = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for prefix, module in model.named_modules():
        own = {"prefix": prefix, "recurse": False, "remove_duplicate": False}
        for place, tensor in [*module.named_parameters(**own), *module.named_buffers(**own)]:
            if tensor.requires_grad:
                trained[place] = names[id(tensor)]
            else:
                constants[place] = tensor.detach().clone()
    return trained, constants


@torch.no_grad()
def predict(model: nn.Module, emb_NFD: Tensor, rows: int = 8192) -> Tensor:
    """Logits [N, T] of `model` in evaluation mode, computed `rows` at a time."""
    model.eval()
    return torch.cat([model(chunk) for chunk in emb_NFD.split(rows)])

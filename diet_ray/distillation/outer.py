"""The outer step: move the memory rows that have a meta-gradient and nothing else.

Shape suffixes: N memory rows, F fields, D embedding dim, T tasks.
"""

import torch
from torch import Tensor

from diet_ray.distillation.unroll import MetaGradient
from diet_ray.errors import DataError
from diet_ray.training.optimisers import SparseAdam


class OuterOptimiser:
    """Adam over embeddings and logits whose state moves only for addressed rows.

    A dense Adam would keep moving every row it once moved, by momentum. torch's SparseAdam leaves rows
    without a gradient, and their moments, bit-identical. The norm of the meta-gradient is clipped at
    `clip` times its moving average (RaT-BPTT: 2 and decay 0.9).
    """

    def __init__(
        self,
        emb_NFD: Tensor,
        logit_NT: Tensor,
        *,
        embedding_rate: float,
        logit_rate: float,
        clip: float = 2.0,
        decay: float = 0.9,
    ) -> None:
        self.emb_NFD, self.logit_NT = emb_NFD.detach().clone(), logit_NT.detach().clone()
        groups = [
            {"params": [self.emb_NFD], "lr": embedding_rate},
            {"params": [self.logit_NT], "lr": logit_rate},
        ]
        self.adam = SparseAdam(groups)
        self.clip, self.decay = clip, decay
        self.usual_norm: float | None = None

    def step(self, gradient: MetaGradient) -> float:
        """Apply one meta-gradient and return its norm before clipping; DataError where it is not finite."""
        norm = torch.sqrt(gradient.emb_NFD.square().sum() + gradient.logit_NT.square().sum()).item()
        if not norm < float("inf"):
            raise DataError(f"meta-gradient is not finite (norm {norm}): lower the inner learning rate")
        scale = self._scale(norm)
        for memory, part in ((self.emb_NFD, gradient.emb_NFD), (self.logit_NT, gradient.logit_NT)):
            memory.grad = torch.sparse_coo_tensor(
                gradient.rows_N[None], part * scale, memory.shape, is_coalesced=True, check_invariants=False
            )
        self.adam.step()
        return norm

    def _scale(self, norm: float) -> float:
        usual = norm if self.usual_norm is None else self.usual_norm
        scale = min(1.0, self.clip * usual / norm) if norm else 1.0
        self.usual_norm = self.decay * usual + (1 - self.decay) * norm * scale
        return scale

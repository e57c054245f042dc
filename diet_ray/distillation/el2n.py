"""EL2N, the difficulty of a row under a checkpoint, and its histogram over a block (eq. 6).

Shape suffixes: N rows, T tasks, B histogram bins.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 65_536


def el2n(logit_NT: Tensor, label_NT: Tensor) -> Tensor:
    """Return ||sigmoid(logits) - labels||_2 per row, in [0, sqrt(T)]; [N] (eq. 6; Paul et al. 2021)."""
    return torch.linalg.vector_norm(logit_NT.sigmoid() - label_NT, dim=1)


def label_group(label_NT: Tensor) -> Tensor:
    """Return the full label vector as a number: task t contributes 2**t; [N] int64."""
    weight_T = 2 ** torch.arange(label_NT.shape[1], device=label_NT.device)
    return (label_NT.long() * weight_T).sum(1)


def labels_of_group(group_N: Tensor, tasks: int) -> Tensor:
    """Return the label vector that each group number stands for; [N, T] float32, inverse of `label_group`."""
    return (group_N.long()[:, None] >> torch.arange(tasks, device=group_N.device) & 1).float()


class El2nHistogram(NamedTuple):
    """Counts of EL2N by label group and bin, and its moments; added up over the parts of a block.

    It locates ranks without sorting the block. What it takes does not grow with the block: half a megabyte
    per label group that occurs.
    """

    count_B: dict[int, NDArray[np.int64]]  # of each label group
    total: float  # sum of EL2N
    squares: float

    @classmethod
    def of(cls, el2n_N: NDArray[np.float32], group_N: NDArray[np.int64], tasks: int) -> "El2nHistogram":
        bin_N = el2n_bin(el2n_N, tasks)
        counts = {
            int(group): np.bincount(bin_N[group_N == group], minlength=BINS) for group in np.unique(group_N)
        }
        exact_N = el2n_N.astype(np.float64)
        return cls(counts, float(exact_N.sum()), float(np.square(exact_N).sum()))

    def merged(self, other: "El2nHistogram") -> "El2nHistogram":
        counts = dict(self.count_B)
        for group, count_B in other.count_B.items():
            counts[group] = counts[group] + count_B if group in counts else count_B
        return El2nHistogram(counts, self.total + other.total, self.squares + other.squares)

    def ungrouped(self) -> "El2nHistogram":
        """The same block as one group, number 0."""
        return self._replace(count_B={0: np.sum(list(self.count_B.values()), axis=0)})

    def group_counts(self) -> dict[int, int]:
        """Rows per label group, ascending by group."""
        return {group: int(self.count_B[group].sum()) for group in sorted(self.count_B)}

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of EL2N."""
        rows = sum(self.group_counts().values())
        mean = self.total / rows
        return mean, max(0.0, self.squares / rows - mean**2) ** 0.5

    def quotas(self, group: int, rank_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the ranks (of ascending EL2N, from 0) of `group` lie in each bin; [B]."""
        bin_N = np.searchsorted(self.count_B[group].cumsum(), rank_N, side="right")
        return np.bincount(bin_N, minlength=BINS)


def el2n_bin(el2n_N: NDArray[np.float32], tasks: int) -> NDArray[np.int64]:
    """Bin of each score; monotone in the score, so bins never disagree with an exact sort."""
    scaled_N = el2n_N.astype(np.float64) * (BINS / np.sqrt(tasks))
    return np.clip(scaled_N.astype(np.int64), 0, BINS - 1)

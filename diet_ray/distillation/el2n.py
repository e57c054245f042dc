"""EL2N, the difficulty of a row under a checkpoint, and its histogram over a block (eq. 6).

Shape suffixes: N rows, T tasks, G label groups (2**T), B histogram bins.
"""

from collections.abc import Mapping
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


def group_name(group: int, tasks: tuple[str, ...]) -> str:
    """The tasks that are 1 in a label group, joined by +."""
    return "+".join(task for t, task in enumerate(tasks) if group >> t & 1) or "none"


class RankedBins(NamedTuple):
    """The bins that hold a range of ranks, and how many of the group's rows lie below them."""

    first: int
    last: int  # inclusive
    below: int


class El2nHistogram(NamedTuple):
    """Counts of EL2N per label group, added up over scorers; it locates ranks without sorting the block."""

    count_GB: NDArray[np.int64]
    tasks: int

    @classmethod
    def of(cls, el2n_N: NDArray[np.float32], group_N: NDArray[np.int64], tasks: int) -> "El2nHistogram":
        groups = 2**tasks
        flat_N = group_N * BINS + el2n_bin(el2n_N, tasks)
        return cls(np.bincount(flat_N, minlength=groups * BINS).reshape(groups, BINS), tasks)

    def merged(self, other: "El2nHistogram") -> "El2nHistogram":
        return El2nHistogram(self.count_GB + other.count_GB, self.tasks)

    def group_counts(self) -> dict[int, int]:
        """Rows per label group, empty groups left out."""
        return {g: int(n) for g, n in enumerate(self.count_GB.sum(1)) if n}

    def bins(self, group: int, ranks: NDArray[np.int64]) -> RankedBins:
        """Return the bins that span `ranks` (of ascending EL2N, from 0, ascending) of `group`; not empty."""
        upto_B = self.count_GB[group].cumsum()
        first, last = np.searchsorted(upto_B, [ranks[0], ranks[-1]], side="right").tolist()
        return RankedBins(first, last, int(upto_B[first - 1]) if first else 0)


def el2n_bin(el2n_N: NDArray[np.float32], tasks: int) -> NDArray[np.int64]:
    """Bin of each score; monotone in the score, so bins never disagree with an exact sort."""
    scaled_N = el2n_N.astype(np.float64) * (BINS / np.sqrt(tasks))
    return np.clip(scaled_N.astype(np.int64), 0, BINS - 1)


def rows_in_bins(
    el2n_N: NDArray[np.float32], group_N: NDArray[np.int64], tasks: int, bins: Mapping[int, RankedBins]
) -> NDArray[np.int64]:
    """Indices of the rows whose score lies in the bins of their group, ascending."""
    bin_N = el2n_bin(el2n_N, tasks)
    keep_N = np.zeros(len(bin_N), dtype=bool)
    for group, span in bins.items():
        keep_N |= (group_N == group) & (bin_N >= span.first) & (bin_N <= span.last)
    return np.flatnonzero(keep_N)

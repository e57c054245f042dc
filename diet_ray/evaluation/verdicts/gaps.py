"""Gaps in AUC between two ways to learn, and how much of a gap is noise.

Shape suffixes: N rows, T tasks, S seeds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diet_ray.training.metrics import Array, auc_components, roc_auc


class Gap(NamedTuple):
    """A mean difference, its standard error (None of a single value) and the error's degrees of freedom."""

    mean: float
    error: float | None
    degrees: float | None = None  # None where they are many


def mean_gap(differences: Array) -> Gap:
    """The mean of paired differences, noise from their spread."""
    values = np.asarray(differences, float)
    if len(values) < 2:
        return Gap(float(values.mean()), None)
    return Gap(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), len(values) - 1)


def auc_gap(own: Sequence[Array], other: Sequence[Array], label_NT: NDArray) -> Gap:
    """Mean AUC over tasks of one learner minus that of another, on the same rows.

    The noise has two sources: another sample of rows (DeLong et al. 1988, paired by row), and other seeds.
    Degrees of freedom by Welch and Satterthwaite; the rows count as many.

    Args:
        own: logits [N, T], one array per seed.
        other: as many, or one where it has no seed.
        label_NT: hard labels.

    Returns:
        The gap; NaN where every task has one class only.
    """
    tasks = [t for t, label_N in enumerate(label_NT.T) if 0 < np.count_nonzero(label_N) < len(label_N)]
    if not tasks:
        return Gap(float("nan"), None)
    label = label_NT[:, tasks]
    gap_S = np.array([_auc(logit[:, tasks], label) for logit in own]) - np.array(
        [_auc(logit[:, tasks], label) for logit in other]
    )
    row_N = _components([logit[:, tasks] for logit in own], label)
    row_N -= _components([logit[:, tasks] for logit in other], label)
    of_rows, seeds = float(np.square(row_N).sum()), len(gap_S)
    if seeds < 2:
        return Gap(float(gap_S.mean()), of_rows**0.5)
    of_seeds = float(gap_S.var(ddof=1)) / seeds
    degrees = (of_rows + of_seeds) ** 2 / (of_seeds**2 / (seeds - 1)) if of_seeds else None
    return Gap(float(gap_S.mean()), (of_rows + of_seeds) ** 0.5, degrees)


def _auc(logit_NT: Array, label_NT: NDArray) -> float:
    return float(np.mean([roc_auc(*task) for task in zip(logit_NT.T, label_NT.T, strict=True)]))


def _components(logits: Sequence[Array], label_NT: NDArray) -> Array:
    """Components of the AUC's mean over seeds and tasks; [N]."""
    parts = [auc_components(*task) for logit in logits for task in zip(logit.T, label_NT.T, strict=True)]
    return np.mean(parts, axis=0)

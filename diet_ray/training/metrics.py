"""AUC and LogLoss per task and their means.

Shape suffixes: N rows, T tasks, U distinct scores.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diet_ray.errors import DataError

Array = NDArray[np.floating]


class TaskScore(NamedTuple):
    auc: float  # NaN where the rows hold one class only
    logloss: float


class Scores(NamedTuple):
    """The mean AUC is over the tasks that have one."""

    auc: float
    logloss: float
    tasks: dict[str, TaskScore]


def roc_auc(score_N: Array, label_N: NDArray) -> float:
    """Probability that a positive row scores above a negative one, ties counting half; NaN for one class."""
    positives = int(np.count_nonzero(label_N))
    negatives = len(label_N) - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(_ranks(score_N)[np.asarray(label_N) > 0].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _ranks(score_N: Array) -> Array:
    """Rank of each score in ascending order, from 1; equal scores have the mean of their ranks; [N]."""
    _, place_N, rows_U = np.unique(score_N, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(rows_U) - (rows_U - 1) / 2)[place_N]
    return ranks


def auc_components(score_N: Array, label_N: NDArray) -> Array:
    """The share of each row in the noise of the AUC; [N], float64.

    The variance of the AUC over samples of rows is the sum of their squares; that of any linear combination
    of AUCs on the same rows is the sum of squares of the same combination of components (DeLong et al.
    1988). NaN for one class.
    """
    positive_N = np.asarray(label_N) > 0
    positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
    if not positives or not negatives:
        return np.full(len(label_N), np.nan)
    score_N = np.asarray(score_N)
    own_rank_N = np.empty(len(score_N))
    for class_N in (positive_N, ~positive_N):
        own_rank_N[class_N] = _ranks(score_N[class_N])
    # How many rows of the other class score lower, ties counting half.
    below_N = _ranks(score_N) - own_rank_N
    won_N = np.where(positive_N, below_N / negatives, 1 - below_N / positives)
    return (won_N - roc_auc(score_N, label_N)) / np.where(positive_N, positives, negatives)


def log_loss(logit_N: Array, label_N: NDArray) -> float:
    """Mean binary cross-entropy in nats, from logits so that confident rows do not overflow."""
    logit = np.asarray(logit_N, np.float64)
    return float(np.mean(np.logaddexp(0, logit) - logit * np.asarray(label_N, np.float64)))


def score_tasks(logit_NT: Array, label_NT: NDArray, names: Sequence[str]) -> Scores:
    """Score every task; DataError where a logit is not finite, which means that the model diverged."""
    if not np.isfinite(logit_NT).all():
        raise DataError("logits are not finite: the model diverged; lower its learning rate")
    tasks = {
        name: TaskScore(roc_auc(logit_N, label_N), log_loss(logit_N, label_N))
        for name, logit_N, label_N in zip(names, logit_NT.T, label_NT.T, strict=True)
    }
    known = [score.auc for score in tasks.values() if not np.isnan(score.auc)]
    mean_auc = float(np.mean(known)) if known else float("nan")
    return Scores(mean_auc, float(np.mean([score.logloss for score in tasks.values()])), tasks)

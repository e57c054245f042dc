"""A score with what is needed to compare it, row by row, with another candidate's on the same rows.

The AUC of N rows is, to first order, the mean of an influence per row (DeLong et al., Biometrics 1988, whose
placement values these are). Summed over groups of consecutive rows the influences are small enough to keep,
and drawing the groups again gives every candidate's AUC under the same draw of rows: a paired bootstrap, in
which what is common to all candidates cancels, and rows of one session, which lie close, stay together.

Shape suffixes: N rows, T tasks, G groups, B draws.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diet_ray.evaluation.before_learned import Progress
from diet_ray.training.metrics import score_tasks

Array = NDArray[np.floating]

GROUPS = 100


class PairedScore(NamedTuple):
    """The AUC of a candidate (mean over the tasks that have one) and how it hangs on the rows."""

    auc: float  # NaN where every task has one class only
    logloss: float
    influence_G: Array  # summed over the rows of a group, in units of AUC; their sum is 0

    def drawn(self, count_BG: Array) -> Array:
        """The AUC when group g is drawn count_BG[b, g] times, to first order; [B]."""
        return self.auc + (count_BG - 1) @ self.influence_G


def paired_score(rows: Progress, groups: int = GROUPS) -> PairedScore:
    """Score rows in the order of time.

    Raises:
        DataError: where a logit is not finite.
    """
    names = tuple(str(task) for task in range(rows.label_NT.shape[1]))
    scores = score_tasks(rows.logit_NT, rows.label_NT, names)
    influences = [
        auc_influence(logit_N, label_N)
        for logit_N, label_N, name in zip(rows.logit_NT.T, rows.label_NT.T, names, strict=True)
        if np.isfinite(scores.tasks[name].auc)
    ]
    ends = [rows.rows * number // groups for number in range(groups + 1)]
    sums_N = np.mean(influences, axis=0) if influences else np.zeros(rows.rows)
    total = np.concatenate([[0.0], np.cumsum(sums_N)])
    return PairedScore(scores.auc, scores.logloss, np.diff(total[ends]))


def auc_influence(score_N: Array, label_N: NDArray) -> Array:
    """What each row contributes to the AUC beyond the mean of its class; sums to 0. Needs both classes."""
    positive_N = np.asarray(label_N) > 0
    positives = int(positive_N.sum())
    negatives = len(label_N) - positives
    rank_N = pd.Series(score_N).rank(method="average").to_numpy()
    influence_N = np.empty(len(label_N))
    for of_class, own, other in ((positive_N, positives, negatives), (~positive_N, negatives, positives)):
        # Rank among all rows less rank among its own class: the rows of the other class below it.
        below = rank_N[of_class] - pd.Series(score_N[of_class]).rank(method="average").to_numpy()
        placement = below / other
        influence_N[of_class] = (placement - placement.mean()) / own
    influence_N[~positive_N] *= -1
    return influence_N


def drawn_groups(draws: int, groups: int, draw: np.random.Generator) -> Array:
    """How often each group is drawn in each of `draws` bootstraps; [B, G], rows sum to `groups`."""
    return draw.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)

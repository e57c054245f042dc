"""Do cheap scores rank candidates as full training does?

Shape suffixes: C candidates.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

Array = NDArray[np.floating]

RESAMPLES = 2000
LEVEL = 0.95
FEWEST = 3  # candidates that have an order worth speaking of


class Estimate(NamedTuple):
    """A statistic with the percentile bootstrap interval over candidates."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """How far scores agree with the truth; higher scores are better."""

    candidates: int
    kendall: Estimate  # tau-b
    spearman: Estimate
    regret: Estimate  # truth of its best candidate less the truth of the one that the scores pick


def agreement(truth_C: Array, score_C: Array, draw: np.random.Generator) -> Agreement:
    """Compare two scorings of the same candidates.

    Raises ValueError where they are not of one length, of fewer than FEWEST candidates, or not finite.
    """
    truth_C, score_C = np.asarray(truth_C, float), np.asarray(score_C, float)
    if truth_C.shape != score_C.shape or truth_C.ndim != 1 or len(truth_C) < FEWEST:
        raise ValueError(
            f"scores of shapes {truth_C.shape} and {score_C.shape}: need two of one length >= {FEWEST}"
        )
    if not (np.isfinite(truth_C).all() and np.isfinite(score_C).all()):
        raise ValueError("scores are not finite")
    drawn = (draw.integers(len(truth_C), size=len(truth_C)) for _ in range(RESAMPLES))
    # A resample of one candidate, again and again, has no order.
    resampled = [rows for rows in drawn if np.ptp(truth_C[rows]) > 0 and np.ptp(score_C[rows]) > 0]

    def estimated(statistic: Callable[[Array, Array], float]) -> Estimate:
        values = np.array([statistic(truth_C[rows], score_C[rows]) for rows in resampled])
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(statistic(truth_C, score_C), float(low), float(high))

    return Agreement(
        len(truth_C),
        estimated(kendall),
        estimated(lambda truth, score: float(spearmanr(truth, score).statistic)),
        estimated(regret),
    )


def kendall(truth_C: Array, score_C: Array) -> float:
    """Kendall's tau-b alone, for whom an interval would cost too much."""
    return float(kendalltau(truth_C, score_C).statistic)


def regret(truth_C: Array, score_C: Array, first: int = 1) -> float:
    """What picking the best of the `first` candidates by score costs, in the unit of the truth.

    Of equal scores the first is picked. Who gets `first` candidates trained fully keeps the best of them.
    """
    chosen = np.argsort(-score_C, kind="stable")[:first]
    return float(truth_C.max() - truth_C[chosen].max())


def clear_pairs(truth_C: Array, score_C: Array, error: float) -> float:
    """Share of the pairs whose truth differs by more than two standard errors that a score orders rightly.

    A pair of equal scores counts half. NaN where no pair is clear.

    Args:
        truth_C: the truth.
        score_C: the scores.
        error: standard error of a difference of two candidates' truth.
    """
    row_P, column_P = np.triu_indices(len(truth_C), 1)
    truth_P, score_P = truth_C[row_P] - truth_C[column_P], score_C[row_P] - score_C[column_P]
    clear_P = np.abs(truth_P) > 2 * error
    if not clear_P.any():
        return float("nan")
    agreed_P = (1 + np.sign(truth_P[clear_P]) * np.sign(score_P[clear_P])) / 2
    return float(agreed_P.mean())

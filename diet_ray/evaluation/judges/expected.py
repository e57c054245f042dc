"""What to expect of candidates after full training, from a judge's scores and a few full trainings.

A judge orders the candidates of one architecture better than chance; which architecture wins in the end it
does not see (docs/results.md), and one full training per architecture shows it. A Gaussian process joins the
two. A candidate's AUC after full training is a common level, its architecture's, half a unit per standard
deviation of its score, and a rest of its own; a training adds noise. All are normal; how large the unit is
comes from the trainings themselves. On five logs other proportions made no difference (docs/tried.md).

Shape suffixes: C candidates, A those fully trained, B draws.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# Variances, of which an architecture's is 1.
COMMON = 4.0
SCORE = 0.25  # per standard deviation of the score
OWN = 0.125  # of a candidate, beyond its architecture and score
NOISE = 0.125  # of a full training, its seed above all
UNIT = 0.003  # AUC: the unit before anything is known, with the weight of two trainings


class Expected(NamedTuple):
    """AUC after full training, noise of the training left out."""

    auc_C: Array
    covariance_CC: Array

    def best_of(self, places: Sequence[int]) -> int:
        """Who of these is expected to be the best; of equal ones the first."""
        return max(places, key=lambda place: float(self.auc_C[place]))

    def of(self, first: int) -> "Expected":
        """The first candidates alone."""
        return Expected(self.auc_C[:first], self.covariance_CC[:first, :first])

    def draws(self, count: int, draw: np.random.Generator) -> Array:
        """[B, C]."""
        return draw.multivariate_normal(self.auc_C, self.covariance_CC, size=count, method="eigh")


def expected(score_C: Array, architecture_C: Sequence[str], trained: Sequence[int], auc_A: Array) -> Expected:
    """The posterior of all candidates, given the AUC of those that were trained.

    Args:
        score_C: of a judge, in any unit; higher is better.
        architecture_C: their names.
        trained: places of candidates.
        auc_A: of these, after full training, in this order.

    Raises:
        ValueError: nobody was trained, or a number is not finite.
    """
    score_C, auc_A = np.asarray(score_C, float), np.asarray(auc_A, float)
    if not len(trained) or len(trained) != len(auc_A):
        raise ValueError(f"{len(trained)} trained candidates with {len(auc_A)} scores")
    if not (np.isfinite(score_C).all() and np.isfinite(auc_A).all()):
        raise ValueError("scores are not finite")
    standard_C = (score_C - score_C.mean()) / (score_C.std() or 1.0)
    names = np.asarray(architecture_C)
    others_CC = COMMON + (names[:, None] == names) + OWN * np.eye(len(score_C))
    by_score_CC = SCORE * np.outer(standard_C, standard_C)
    found, slope = _posterior(others_CC + by_score_CC, trained, auc_A, standard_C)
    # A judge is not believed to order backwards: architectures that it confuses would turn its order around.
    return found if slope >= 0 else _posterior(others_CC, trained, auc_A, standard_C)[0]


def _posterior(
    prior_CC: Array, trained: Sequence[int], auc_A: Array, standard_C: Array
) -> tuple[Expected, float]:
    """The posterior, and the sign of what it gives for a higher score."""
    known_CA, rest_A = prior_CC[:, trained], auc_A - auc_A.mean()
    observed_AA = known_CA[trained] + NOISE * np.eye(len(trained))
    gain_CA = np.linalg.solve(observed_AA, known_CA.T).T
    weight_A = np.linalg.solve(observed_AA, rest_A)
    unit = (2 * UNIT**2 + float(rest_A @ weight_A)) / (2 + len(trained))
    auc_C = np.round(auc_A.mean() + known_CA @ weight_A, 9)  # who is equal but for the last bits is equal
    found = Expected(auc_C, unit * (prior_CC - gain_CA @ known_CA.T))
    return found, float(standard_C[trained] @ weight_A)


def next_to_train(
    score_C: Array, architecture_C: Sequence[str], trained: Sequence[int], auc_A: Array, count: int
) -> list[int]:
    """Whom to train fully next, at most `count`; none where all are.

    First the best by score of every architecture of which none has been trained, the best first: they can be
    trained at the same time. Then, one by one, who is expected to be the best.
    """
    left = [place for place in np.argsort(-np.asarray(score_C), kind="stable") if place not in set(trained)]
    seen = {architecture_C[place] for place in trained}
    first: dict[str, int] = {}
    for place in left:
        if architecture_C[place] not in seen:
            first.setdefault(architecture_C[place], int(place))
    if first or not left:
        return list(first.values())[:count]
    return [int(expected(score_C, architecture_C, trained, auc_A).best_of(left))][:count]

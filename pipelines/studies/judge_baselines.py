"""What judges are held against at equal cost: full trainings of some candidates, and of none to the end.

Shape suffixes: C candidates.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from diet_ray.evaluation.agreement import clear_pairs, kendall, regret
from diet_ray.evaluation.judges.expected import expected, next_to_train
from diet_ray.seeding import numpy_generator
from pipelines.studies.known_truth import Array, Judged, Known, measured

FEWEST = 5
ANCHORS, ANCHOR_DRAWS = 10, 200  # of the ridge; draws also of the random choice
TRAINED = (3, 5, 8)  # candidates that are fully trained after a judge


def trained_after(truth: Known, judge: str, judged: Judged) -> list[dict[str, Any]]:
    """A judge and a few full trainings after it: of who tells most (judges/expected.py), or of its best.

    The first is who is expected to be the best of the trained, as in `diet-ray search --confirm full`.
    """
    rows = []
    for count in TRAINED:
        if count >= len(truth.names):
            break
        cost = judged.cost + count / len(truth.names)
        rows.append(measured(truth, f"{judge}, then {count} trained", _expected(truth, judged, count), cost))
        best = np.argsort(-judged.score_C, kind="stable")[:count]
        top_C = judged.score_C - judged.score_C.max() + truth.bought_C.min() - 1
        top_C[best] = truth.bought_C[best]
        rows.append(measured(truth, f"{judge}, then its best {count}", top_C, cost))
    return rows


def _expected(truth: Known, judged: Judged, count: int) -> Array:
    """Places in the order of a search, the best highest: by expectation, equal ones by score."""
    known = judged.score_C, truth.architectures
    trained: list[int] = []
    while len(trained) < count:
        trained += next_to_train(*known, trained, truth.bought_C[trained], count - len(trained))
    found = expected(*known, trained, truth.bought_C[trained])
    auc_C = found.auc_C.copy()
    auc_C[found.best_of(trained)] = auc_C.max() + 1
    place_C = np.empty(len(auc_C))
    place_C[np.lexsort((judged.score_C, auc_C))] = np.arange(len(auc_C))
    return place_C


def stopped(truth: Known) -> list[dict[str, Any]]:
    """Full training stopped on the way: the AUC of the last pieces learned so far (Isik et al.)."""
    curves = [[auc for block in own.values() for auc in block] for own in truth.for_sale["progressive_auc"]]
    curve_CP, rows = np.array(curves), []
    for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2):
        pieces = curve_CP.shape[1]
        seen = max(1, round(share * pieces))
        score_C = curve_CP[:, max(0, seen - max(1, seen // 2)) : seen].mean(1)
        rows.append(measured(truth, f"stopped after {share:.0%} of the stream", score_C, seen / pieces))
    return rows


def ceiling(truth: Known) -> list[dict[str, Any]]:
    """One full training of every candidate, by the validation block."""
    if truth.table["seed"].nunique() < 2:
        return []
    return [measured(truth, "full training, another seed", truth.bought_C, 1.0)]


def ridge(truth: Known) -> list[dict[str, Any]]:
    """Ridge regression on architecture and log learning rate with ANCHORS fully trained candidates."""
    if len(truth.names) < ANCHORS + FEWEST:
        return []
    features = pd.get_dummies(pd.Series(truth.architectures)).astype(float)
    features["rate"] = [np.log(config["learning_rate"]) for config in truth.for_sale["config"]]
    x_CK = features.to_numpy()

    def guess(chosen: NDArray[np.int64]) -> Array:
        score_C = Ridge(alpha=1.0).fit(x_CK[chosen], truth.bought_C[chosen]).predict(x_CK)
        score_C[chosen] = truth.bought_C[chosen]
        return np.asarray(score_C)

    return [_mean_over_draws(truth, f"ridge, {ANCHORS} anchors", guess, ANCHORS)]


def random(truth: Known) -> list[dict[str, Any]]:
    """An eighth of the candidates, drawn at random and fully trained; the others share the last place."""
    count = max(1, len(truth.names) // 8)

    def guess(chosen: NDArray[np.int64]) -> Array:
        score_C = np.full(len(truth.names), truth.bought_C.min() - 1)
        score_C[chosen] = truth.bought_C[chosen]
        return score_C

    return [_mean_over_draws(truth, f"{count} random, fully trained", guess, count)]


def _mean_over_draws(
    truth: Known, judge: str, guess: Callable[[NDArray[np.int64]], Array], count: int
) -> dict[str, Any]:
    draw, total = numpy_generator(0, "judge table", judge), len(truth.names)
    guesses = [guess(draw.choice(total, count, replace=False)) for _ in range(ANCHOR_DRAWS)]
    tau = np.array([kendall(truth.truth_C, score_C) for score_C in guesses])
    clear = [clear_pairs(truth.truth_C, score_C, truth.error) for score_C in guesses]
    return {
        "judge": judge,
        "cost": count / total,
        "tau": float(tau.mean()),
        "tau_low": float(np.quantile(tau, 0.025)),
        "tau_high": float(np.quantile(tau, 0.975)),
        "clear": float(np.mean(clear)),
        "regret": float(np.mean([regret(truth.truth_C, score_C) for score_C in guesses])),
        "regret3": float(np.mean([regret(truth.truth_C, score_C, 3) for score_C in guesses])),
        "candidates": total,
    }

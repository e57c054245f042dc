"""What is expected after full training: a Gaussian process as a regression in weights, and who is next."""

import numpy as np
import pandas as pd
import pytest

from diet_ray.evaluation.judges.expected import COMMON, NOISE, OWN, SCORE, UNIT, expected, next_to_train
from pipelines.searching.results import full_training_due

NAMES = ["dcn", "dcn", "wukong", "wukong", "finalnet", "dcn"]
SCORES = np.array([0.70, 0.71, 0.74, 0.69, 0.72, 0.75])


def test_the_posterior_is_that_of_a_regression_in_weights() -> None:
    trained, auc_A = [1, 2, 4], np.array([0.760, 0.771, 0.752])
    found = expected(SCORES, NAMES, trained, auc_A)
    standard = (SCORES - SCORES.mean()) / SCORES.std()
    hot = np.array([[name == other for other in sorted(set(NAMES))] for name in NAMES], float)
    own = np.eye(len(NAMES)) * np.sqrt(OWN)
    x = np.hstack([np.full((len(NAMES), 1), np.sqrt(COMMON)), np.sqrt(SCORE) * standard[:, None], hot, own])
    seen, rest = x[trained], auc_A - auc_A.mean()
    precision = seen.T @ seen / NOISE + np.eye(x.shape[1])
    weights = np.linalg.solve(precision, seen.T @ rest / NOISE)
    np.testing.assert_allclose(found.auc_C, auc_A.mean() + x @ weights, atol=1e-9)
    # The unit: two trainings' worth of UNIT, and how far these are from the prior.
    marginal = seen @ seen.T + NOISE * np.eye(3)
    unit = (2 * UNIT**2 + rest @ np.linalg.inv(marginal) @ rest) / 5
    np.testing.assert_allclose(found.covariance_CC, unit * x @ np.linalg.inv(precision) @ x.T, atol=1e-12)
    draws = found.draws(200_000, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(0), found.auc_C, atol=5e-5)
    np.testing.assert_allclose(np.cov(draws.T), found.covariance_CC, atol=2e-7)


def test_a_training_tells_of_its_architecture_and_the_score_within_it() -> None:
    auc_C = expected(SCORES, NAMES, [1, 2], np.array([0.75, 0.77])).auc_C
    assert auc_C[2] > auc_C[3] > auc_C[5] > auc_C[1] > auc_C[0]  # wukongs, then dcns, each by score
    assert auc_C[5] < auc_C[4] < auc_C[2]  # of finalnet nothing is known but the level and its score


def test_a_judge_that_confuses_architectures_does_not_order_backwards_within_them() -> None:
    names, scores = ["dcn", "dcn", "wukong", "wukong"], np.array([0.80, 0.79, 0.50, 0.49])
    auc_C = expected(scores, names, [0, 2], np.array([0.75, 0.77])).auc_C
    assert auc_C[3] > auc_C[1] and auc_C[1] >= auc_C[0]
    assert auc_C[1] < 0.76 < auc_C[3]
    same = expected(np.full(4, 0.7), names, [0, 2], np.array([0.75, 0.77])).auc_C
    np.testing.assert_allclose(auc_C, same)  # without the score


def test_who_is_trained_next() -> None:
    assert next_to_train(SCORES, NAMES, [], np.array([]), 9) == [5, 2, 4]  # the best of each, the best first
    assert next_to_train(SCORES, NAMES, [], np.array([]), 2) == [5, 2]
    assert next_to_train(SCORES, NAMES, [5, 2], np.array([0.76, 0.77]), 1) == [4]
    known = [5, 2, 4], np.array([0.76, 0.78, 0.75])
    assert next_to_train(SCORES, NAMES, *known, 4) == [3]  # a wukong, whose score is the lowest
    assert next_to_train(SCORES, NAMES, [5, 2, 4], np.array([0.78, 0.76, 0.75]), 4) == [1]
    assert next_to_train(SCORES, NAMES, *known, 0) == []
    assert next_to_train(SCORES, NAMES, range(6), np.full(6, 0.7), 4) == []


def test_the_first_of_them_are_the_same_alone() -> None:
    found = expected(SCORES, NAMES, [1], np.array([0.75]))
    alone = found.of(2)
    assert alone.auc_C.tolist() == found.auc_C[:2].tolist() and alone.covariance_CC.shape == (2, 2)


def test_equal_scores_are_no_division_by_zero() -> None:
    auc_C = expected(np.full(3, 0.7), ["a", "a", "b"], [0], np.array([0.75])).auc_C
    assert auc_C == pytest.approx([0.75] * 3)


@pytest.mark.parametrize(
    ("trained", "auc", "message"),
    [([], [], "0 trained"), ([1], [0.7, 0.8], "1 trained .* 2"), ([1], [np.nan], "finite")],
)
def test_what_cannot_be_expected_is_told(trained: list[int], auc: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected(SCORES, NAMES, trained, np.array(auc))


def test_a_full_training_that_failed_counts_and_tells_nothing() -> None:
    found = pd.DataFrame(
        {
            "number": [3, 1, 0, 5, 2, 4],  # in any order
            "model": NAMES,
            "score": SCORES,
            "objective": SCORES,
            "pieces": [4, 4, 4, 4, 4, 2],  # the best was stopped, so its score is no comparison
            "confirmed_by": ["", "", "", "", "full", ""],
            "confirmed_objective": [np.nan] * 6,
        }
    )
    assert full_training_due(found, [], 3) == [0, 1]  # of finalnet the only one failed
    assert full_training_due(found, [0], 3) == [1]  # so did the best wukong: one more, and no more
    assert full_training_due(found, [0], 2) == []
    assert full_training_due(found[:0], [], 3) == []
    known = found.assign(confirmed_by="full", confirmed_objective=[0.7, np.nan, 0.8, np.nan, np.nan, np.nan])
    assert full_training_due(known[[True, True, True, False, False, False]], [], 9) == []

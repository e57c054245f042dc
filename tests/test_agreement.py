"""Agreement of two rankings, by hand and by properties."""

import numpy as np
import pytest

from diet_ray.evaluation.agreement import agreement, regret


def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def test_by_hand() -> None:
    # Of the six pairs, (2, 3) alone is turned round: tau = (5 - 1) / 6; squared rank differences sum to 2.
    found = agreement(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 2.0, 4.0, 3.0]), draw())
    assert found.kendall.value == pytest.approx(4 / 6)
    assert found.spearman.value == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found.regret.value == pytest.approx(0.1)
    assert found.candidates == 4


def test_only_the_order_of_the_scores_counts() -> None:
    truth = draw().normal(size=20)
    found = agreement(truth, np.exp(3 * truth), draw())
    assert found.kendall == pytest.approx((1, 1, 1)) and found.regret == (0, 0, 0)
    assert agreement(truth, -truth, draw()).kendall.value == pytest.approx(-1)


def test_intervals_hold_the_value_and_narrow_with_candidates() -> None:
    def width(candidates: int) -> float:
        random = np.random.default_rng(3)
        truth = random.normal(size=candidates)
        kendall = agreement(truth, truth + random.normal(size=candidates), draw()).kendall
        assert kendall.low < kendall.value < kendall.high
        return kendall.high - kendall.low

    assert width(200) < width(20) / 2


def test_regret_is_never_negative() -> None:
    random = draw()
    for _ in range(50):
        assert regret(random.normal(size=8), random.normal(size=8)) >= 0


@pytest.mark.parametrize(
    ("truth", "score", "message"),
    [
        ([1, 2], [1, 2], "need two"),
        ([1, 2, 3], [1, 2], "need two"),
        ([1, 2, np.nan], [1, 2, 3], "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(truth: list, score: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(np.array(truth), np.array(score), draw())

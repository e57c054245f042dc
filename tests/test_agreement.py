"""Agreement of two rankings, by hand and by properties."""

from itertools import combinations

import numpy as np
import pytest

from diet_ray.evaluation import agreement as agreement_module
from diet_ray.evaluation.agreement import agreement, kendall, regret


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for an interval and a tenth of the time."""
    assert agreement_module.RESAMPLES == 2000
    monkeypatch.setattr(agreement_module, "RESAMPLES", 200)


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
        estimate = agreement(truth, truth + random.normal(size=candidates), draw()).kendall
        assert estimate.low < estimate.value < estimate.high
        return estimate.high - estimate.low

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


def test_intervals_are_quantiles_of_resampled_candidates() -> None:
    """By explicit loops: Kendall's tau-b over pairs, Spearman's rho over ranks, regret by the first pick."""
    truth = np.array([0.1, 0.4, 0.2, 0.2, 0.9, 0.5])
    score = np.array([1.0, 3.0, 3.0, 0.5, 2.0, 2.5])

    def tau_b(x: np.ndarray, y: np.ndarray) -> float:
        pairs = list(combinations(range(len(x)), 2))
        signs = np.array([(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs])
        concordant = signs.prod(1).sum()
        return float(concordant / np.sqrt((signs[:, 0] != 0).sum() * (signs[:, 1] != 0).sum()))

    def rho(x: np.ndarray, y: np.ndarray) -> float:
        ranks = np.array([[np.flatnonzero(np.sort(v) == value).mean() for value in v] for v in (x, y)])
        return float(np.corrcoef(ranks)[0, 1])

    def lost(x: np.ndarray, y: np.ndarray) -> float:
        return float(max(x) - x[list(y).index(max(y))])

    random, samples = draw(), list[np.ndarray]()
    for _ in range(200):
        rows = random.integers(6, size=6)
        if len(set(truth[rows])) > 1 and len(set(score[rows])) > 1:
            samples.append(rows)
    result = agreement(truth, score, draw())
    assert result.candidates == 6
    for estimate, statistic in ((result.kendall, tau_b), (result.spearman, rho), (result.regret, lost)):
        values = [statistic(truth[rows], score[rows]) for rows in samples]
        assert estimate.value == pytest.approx(statistic(truth, score))
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert kendall(truth, score) == pytest.approx(tau_b(truth, score))
    assert regret(truth, score) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("truth", "score"), [([1, 2, 3], [1, 2, np.inf]), ([[1, 2, 3]], [[1, 2, 3]]), ([1, 2], [2, 1])]
)
def test_every_score_must_be_a_finite_number_in_a_row(truth: list, score: list) -> None:
    with pytest.raises(ValueError, match="scores"):
        agreement(np.array(truth), np.array(score), draw())
    assert agreement(np.array([1, 2, 4]), np.array([1, 2, 3]), draw()).kendall.value == pytest.approx(1)

"""Metrics against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from diet_ray.errors import DataError
from diet_ray.training.metrics import log_loss, roc_auc, score_tasks


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([2, 5, 10**6]))
def test_auc_equals_scikit_learn_with_ties(seed: int, levels: int) -> None:
    draw = np.random.default_rng(seed)
    label_N = draw.permutation([0, 1] * 50 + [0] * 100)
    score_N = draw.integers(levels, size=200).astype(np.float32)
    assert roc_auc(score_N, label_N) == pytest.approx(roc_auc_score(label_N, score_N), abs=1e-12)


def test_auc_of_one_class_is_nan() -> None:
    assert np.isnan(roc_auc(np.arange(3.0), np.ones(3)))


def test_log_loss_equals_scikit_learn_and_stays_finite() -> None:
    draw = np.random.default_rng(0)
    logit_N, label_N = draw.normal(size=500) * 3, draw.integers(2, size=500)
    expected = sklearn_log_loss(label_N, 1 / (1 + np.exp(-logit_N)))
    assert log_loss(logit_N, label_N) == pytest.approx(expected, rel=1e-12)
    assert log_loss(np.array([-1000.0]), np.array([1])) == 1000.0


def test_means_leave_out_the_auc_of_a_task_with_one_class() -> None:
    logit_NT = np.array([[0.0, 1.0], [1.0, 2.0]])
    scores = score_tasks(logit_NT, np.array([[0, 1], [1, 1]]), ["click", "like"])
    assert scores.auc == scores.tasks["click"].auc == 1.0
    assert scores.logloss == pytest.approx(np.mean([t.logloss for t in scores.tasks.values()]))


def test_a_diverged_model_is_named() -> None:
    with pytest.raises(DataError, match="diverged"):
        score_tasks(np.array([[np.nan]]), np.array([[1]]), ["click"])


def test_every_task_is_scored_by_its_own_logits_and_labels() -> None:
    draw = np.random.default_rng(1)
    logit_NT, label_NT = draw.normal(size=(200, 3)), draw.integers(2, size=(200, 3))
    scores = score_tasks(logit_NT, label_NT, ["click", "like", "buy"])
    assert list(scores.tasks) == ["click", "like", "buy"]
    for t, score in enumerate(scores.tasks.values()):
        chance_N = 1 / (1 + np.exp(-logit_NT[:, t]))
        assert score.auc == pytest.approx(roc_auc_score(label_NT[:, t], chance_N))
        assert score.logloss == pytest.approx(sklearn_log_loss(label_NT[:, t], chance_N))
    assert scores.auc == pytest.approx(np.mean([score.auc for score in scores.tasks.values()]))
    assert scores.logloss == pytest.approx(np.mean([score.logloss for score in scores.tasks.values()]))

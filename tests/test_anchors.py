"""Candidates whose full training is known, and what they say of judges."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.evaluation.judges.anchors import calibrate, read_anchors


def test_a_judge_that_knows_more_weighs_more() -> None:
    draw = np.random.default_rng(0)
    truth_A = 0.75 + 0.01 * draw.normal(size=40)
    knows_A, guesses_A = 0.5 * truth_A + 0.001 * draw.normal(size=40), 0.7 + 0.005 * draw.normal(size=40)
    found = calibrate(truth_A, np.stack([knows_A, guesses_A], 1), ["knows", "guesses"])
    assert found.weights["knows"] > 4 * found.weights["guesses"] >= 0
    assert sum(found.weights.values()) == pytest.approx(2)
    assert found.tau["knows"] > 0.6 > 0.4 > found.tau["guesses"] and found.believed


def test_slope_and_error_are_those_of_the_line() -> None:
    score_A = np.linspace(0.70, 0.72, 9)
    wave_A = np.where(np.arange(9) % 2, 1e-4, -1e-4)
    found = calibrate(0.4 + 0.5 * score_A + wave_A, score_A[:, None], ["cold"])
    spread = score_A - score_A.mean()
    line = np.polyfit(spread, 0.5 * score_A + wave_A, 1)
    error = 0.5 * score_A + wave_A - np.polyval(line, spread)
    assert found.slope == pytest.approx(line[0])
    assert found.agreement == pytest.approx(np.sqrt((error**2).sum() / 7))


def test_judges_that_order_the_anchors_by_chance_or_backwards_are_not_believed() -> None:
    draw = np.random.default_rng(3)
    chance = calibrate(draw.normal(size=12), draw.normal(size=(12, 2)), ["cold", "mixed"])
    assert not chance.believed
    truth_A = np.linspace(0, 1, 8)
    backwards = calibrate(truth_A, -truth_A[:, None], ["cold"])
    assert not backwards.believed and backwards.slope == 0 and backwards.combined_tau < -0.99
    with pytest.raises(ValueError, match="at least 4"):
        calibrate(truth_A[:3], truth_A[:3, None], ["cold"])


def test_weights_are_equal_where_nothing_is_told() -> None:
    found = calibrate(np.full(6, 0.7), np.random.default_rng(0).normal(size=(6, 2)), ["a", "b"])
    assert found.weights == {"a": 1, "b": 1} and not found.believed


def table(**changed: object) -> pd.DataFrame:
    candidates = [CandidateConfig(name="dcn", learning_rate=rate) for rate in (1e-4, 1e-3, 2e-3, 3e-3, 4e-3)]
    plain = [json.dumps(candidate.model_dump(mode="json")) for candidate in candidates]
    return pd.DataFrame({"candidate": plain, "auc": [0.7, 0.72, None, 0.71, 0.73], **changed})


def test_anchors_are_read_from_results(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    table().to_parquet(path)
    anchors = read_anchors(str(path))
    assert [anchor.auc for anchor in anchors] == [0.7, 0.72, 0.71, 0.73]
    assert anchors[1].candidate.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"auc": [0.7, 0.72, None, None, None]}, "has 2 candidates with an AUC; at least 4"),
        ({"candidate": ["{"] * 5}, "'{' is not the JSON of a candidate"),
        ({"candidate": ['{"nmae": "dcn"}'] * 5}, "nmae"),
    ],
)
def test_wrong_anchors_are_named(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    path = tmp_path / "anchors.parquet"
    table(**changed).to_parquet(path)
    with pytest.raises(ConfigError, match=message):
        read_anchors(str(path))
    table().drop(columns="auc").to_parquet(path)
    with pytest.raises(ConfigError, match="no column 'auc'"):
        read_anchors(str(path))
    path.write_text("candidate,auc")
    with pytest.raises(ConfigError, match="is not a Parquet file"):
        read_anchors(str(path))

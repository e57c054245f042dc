"""Who goes on at a rung of a search, and when a budget is spent."""

from types import SimpleNamespace

import numpy as np
import pytest

from actors.trials import WORST
from diet_ray.errors import ConfigError
from pipelines.searching.rungs import FEWEST, Budget, Rung, Rungs, default_rungs, parsed_budget


def told(rungs: Rungs, step: int, score: float, architecture: str = "dcn") -> str:
    trial = SimpleNamespace(config={"trial": {"candidate": {"name": architecture}}})
    return rungs.on_trial_result(None, trial, {"objective": score, "training_iteration": step})


def test_the_best_share_goes_on() -> None:
    rungs = Rungs((Rung(2, 0.25),))
    draw = np.random.default_rng(0).permutation(200) / 200
    decisions = [told(rungs, 2, score) for score in draw]
    assert decisions[: FEWEST - 1] == ["CONTINUE"] * (FEWEST - 1)
    for n, (score, decision) in enumerate(zip(draw, decisions, strict=True)):
        if n >= FEWEST:
            assert (decision == "CONTINUE") == (score >= np.quantile(draw[: n + 1], 0.75))
    assert 35 < decisions.count("CONTINUE") < 75
    assert told(rungs, 1, 0.0) == told(rungs, 3, 0.0) == "CONTINUE"  # between rungs nobody is stopped


def test_failures_do_not_count_at_a_rung() -> None:
    rungs = Rungs((Rung(1, 0.5),))
    for _ in range(10):
        told(rungs, 1, WORST)
    assert rungs.scores[1] == {}
    assert [told(rungs, 1, score) for score in (0.4, 0.3, 0.2, 0.1)][-1] == "STOP"


def test_the_best_of_an_architecture_goes_on() -> None:
    rungs = Rungs((Rung(1, 0.5),))
    for score in (0.9, 0.8, 0.7, 0.6):
        told(rungs, 1, score)
    assert told(rungs, 1, 0.2, "finalnet") == "CONTINUE"
    assert told(rungs, 1, 0.1, "finalnet") == "STOP"
    assert told(rungs, 1, 0.3, "finalnet") == "CONTINUE"
    assert told(rungs, 1, 0.3, "dcn") == "STOP"


def test_rungs_follow_the_pieces() -> None:
    assert default_rungs(1, 8) == (Rung(1, 0.8), Rung(3, 0.5), Rung(5, 0.5))
    assert default_rungs(0, 8) == (Rung(2, 0.5), Rung(4, 0.5))
    assert default_rungs(1, 4) == (Rung(1, 0.8), Rung(3, 0.5))  # nobody is stopped after the first piece
    assert default_rungs(1, 1) == default_rungs(1, 2) == (Rung(1, 0.8),)


def test_a_budget_is_trainings_or_minutes() -> None:
    trainings = parsed_budget("1.5")
    assert not trainings("a", {"cost": 0.7}) and not trainings("b", {"cost": 0.7})
    assert trainings("b", {"cost": 0.9}) and trainings.stop_all()
    assert not Budget()("a", {"cost": 1e9}) and parsed_budget(None).trainings is None
    late = parsed_budget("2m")
    assert late.seconds == 120 and not late.stop_all()
    late.started -= 121
    assert late.stop_all()
    for wrong in ("much", "-1", "0m", "nan"):
        with pytest.raises(ConfigError, match="--budget"):
            parsed_budget(wrong)

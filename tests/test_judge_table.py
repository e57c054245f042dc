"""The table that holds judges against full training, on made-up records whose order is known."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from diet_ray import layout
from diet_ray.evaluation.agreement import clear_pairs, regret
from diet_ray.storage import Folder
from pipelines.reporting.judges import judge_page
from pipelines.studies import known_truth
from pipelines.studies.judge_baselines import ANCHORS
from pipelines.studies.judge_table import judge_table, judged_scores
from pipelines.studies.known_truth import known

CANDIDATES = 20


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_truth, "RESAMPLES", 30)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Truth rises with the number; seeds differ by 0.0002; `cold` agrees, `mixed` has it backwards.

    All are of one architecture but the two last, which are the best.
    """
    folder = Folder.at(str(tmp_path))
    for number in range(CANDIDATES):
        architecture = "dcn" if number < CANDIDATES - 2 else "wukong"
        name = f"{architecture}-{number:02d}"
        for seed in (0, 1):
            auc = 0.7 + 0.001 * number + 0.0002 * seed
            record = {
                "candidate": name,
                "seed": seed,
                "config": {"name": architecture, "learning_rate": 1e-3 * (1 + number)},
                "validation": {"auc": auc},
                "test": {"auc": -auc},
                "progressive_auc": {"0001": [0.5] * 8, "subsequent": [auc] * 8},
                "rows": 1000,
                "seconds": 100.0,
            }
            folder.write_json(layout.full_training(name, seed), record)
        for judge, sign in (("cold", 1), ("mixed", -1)):
            auc = [0.5, 0.6 + sign * 0.002 * number]
            judged = {"judge": judge, "auc": auc, "logloss": [0.5, 0.5], "influence": [0.0], "rows": 100}
            folder.write_json(layout.judged(judge, name, 0), judged)
    folder.write_json(layout.TRUTH_REFERENCE_COST, {"rows": 1000})
    return folder


def test_judges_and_baselines_are_measured_alike(folder: Folder) -> None:
    table = judge_table(folder, "validation", 2).set_index("judge")
    cold, mixed = table.loc["cold"], table.loc["mixed"]
    assert (cold["tau"], cold["clear"], cold["regret"]) == (1, 1, 0)
    assert (mixed["tau"], mixed["clear"]) == (-1, 0)
    assert mixed["regret"] == pytest.approx(0.019) and mixed["regret3"] == pytest.approx(0.017)
    assert cold["cost"] == pytest.approx(0.1)
    assert mixed["cost"] == pytest.approx((100 + 1000 / CANDIDATES) / 1000)  # its share of the reference
    half = table.loc["cold, 1 of 2 pieces"]
    assert half["cost"] == pytest.approx(0.05) and np.isnan(half["tau"]) and half["clear"] == 0.5
    assert table.loc["full training, another seed", "tau"] == 1
    assert table.loc["stopped after 50% of the stream", "cost"] == 0.5
    ridge = table.loc[f"ridge, {ANCHORS} anchors"]
    assert ridge["cost"] == 0.5 and ridge["tau"] > 0.5  # the learning rate rises with the truth
    assert "cold, then 3 trained" not in table.index  # of `half` alone, the judge of a search
    lucky = table.loc["2 random, fully trained"]
    assert lucky["cost"] == 0.1 and 0 < lucky["tau"] < 0.5 and lucky["regret"] > 0.003


def test_a_few_trainings_after_the_judge_of_a_search_tell_architectures_apart(folder: Folder) -> None:
    names = known(folder, "validation", 2).names
    for number, name in enumerate(names):  # right within an architecture, and the better one below the other
        auc = [0.6 + 0.002 * number - 0.1 * name.startswith("wukong")]
        record = {"judge": "half", "auc": auc, "logloss": [0.5], "influence": [0.0], "rows": 50}
        folder.write_json(layout.judged("half", name, 0), record)
    table = judge_table(folder, "validation", 2).set_index("judge")
    pairs = CANDIDATES * (CANDIDATES - 1) / 2
    assert table.loc["half", "tau"] == pytest.approx((pairs - 2 * 2 * (CANDIDATES - 2)) / pairs)
    trained, best = table.loc["half, then 3 trained"], table.loc["half, then its best 3"]
    # The trained dcn is less than the others are expected to be, by its own training; all else is right.
    assert (trained["tau"], trained["regret"]) == (pytest.approx(1 - 2 * (CANDIDATES - 3) / pairs), 0)
    assert trained["cost"] == best["cost"] == pytest.approx(0.05 + 3 / CANDIDATES)
    assert best["tau"] == table.loc["half", "tau"] and best["regret"] == pytest.approx(0.002)


def test_what_is_bought_is_no_truth(folder: Folder) -> None:
    for seed, shift in ((0, 0.0), (1, 0.5)):
        record = folder.read_json(layout.full_training("dcn-03", seed))
        record["validation"]["auc"] += shift
        folder.write_json(layout.full_training("dcn-03", seed), record)
    first, second = (known(folder, "validation", 2, bought) for bought in (0, 1))
    place = first.names.index("dcn-03")
    assert (first.bought_C[place], first.truth_C[place]) == pytest.approx((0.703, 1.2032))
    assert (second.bought_C[place], second.truth_C[place]) == pytest.approx((1.2032, 0.703))
    alone = known(folder, "validation", 1)
    assert list(alone.truth_C) == list(alone.bought_C)


def test_the_test_block_is_read_only_where_it_is_asked_for(folder: Folder) -> None:
    assert judge_table(folder, "test", 2).set_index("judge").loc["cold", "tau"] == -1
    truth = known(folder, "validation", 2)
    assert truth.error == pytest.approx(np.sqrt(2 * 0.0002**2 / 2)) and len(truth.names) == CANDIDATES
    folder.fs.rm(folder / layout.full_training("dcn-00", 1))
    assert len(known(folder, "validation", 2).names) == CANDIDATES - 1


def test_clear_pairs_and_regret_by_hand() -> None:
    truth_C, score_C = np.array([0.70, 0.71, 0.7105, 0.73]), np.array([3.0, 1.0, 2.0, 1.0])
    # Clear at an error of 0.001: all pairs but (1, 2). Right: (1, 3) is tied, (0, x) and (2, 3) are wrong.
    assert clear_pairs(truth_C, score_C, 0.001) == pytest.approx(0.5 / 5)
    assert np.isnan(clear_pairs(truth_C, score_C, 1.0))
    assert regret(truth_C, score_C) == pytest.approx(0.03)
    assert regret(truth_C, score_C, 3) == pytest.approx(0.0195)  # of equal scores the first


def test_the_page_has_every_row_and_a_dot_per_candidate_with_its_error(folder: Folder) -> None:
    table, scores = judge_table(folder, "validation", 2), judged_scores(folder, "validation", 2)
    error = 0.0002 / np.sqrt(2)  # of one seed; two differ by 0.0002
    assert list(scores["error"]) == pytest.approx([error] * CANDIDATES)
    assert scores["cold"].is_monotonic_increasing and scores["mixed"].is_monotonic_decreasing
    text = judge_page(table, scores, ["of a test"], "today")
    for row in table["judge"]:
        assert str(escape(row)) in text
    specs = [json.loads(unescape(spec)) for spec in re.findall(r"data-spec='([^']*)'", text)]
    *_, dots = (next(iter(spec["datasets"].values())) for spec in specs)
    (compared,) = specs[0]["datasets"].values()
    assert {row["judge"] for row in compared if row["kind"] == "judge"} == {
        row for row in table["judge"] if row.startswith(("cold", "mixed"))
    }
    own = [dot for dot in dots if dot["judge"] == "cold"]
    assert [dot["candidate"] for dot in own] == list(scores["candidate"])
    assert own[3]["high"] - own[3]["low"] == pytest.approx(2 * error)

"""A search by judges over a tiny run: who is stopped, what is said of the winner, budget, resuming."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError, DietError, RunError
from diet_ray.evaluation.judges.expected import expected
from diet_ray.evaluation.judges.record import JudgeRecord
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.storage import Folder
from pipelines.runtime.candidates import load_candidate
from pipelines.search import Search, search
from pipelines.searching.leaderboard import leaderboard, summary
from tests.kill_harness import kill_when
from tests.tiny_run import FIT

ROOT = Path(__file__).parents[1]
SAMPLES = 8


def asked(run: str, **changed: Any) -> Search:
    given = {
        "space": "joint",
        "judges": "cold,mixed",
        "samples": SAMPLES,
        "confirm": 0,
        "max_concurrent": 1,
        "fit": FIT,
    }
    return Search(run=run, **{**given, **changed})


def copied(run_dir: str, to: Path) -> str:
    shutil.copytree(run_dir, to, ignore=shutil.ignore_patterns("evaluation"))
    return str(to)


def records(run: str) -> list[TrialRecord]:
    folder = Folder.at(f"{run}/search")
    return [record for n in range(SAMPLES) if (record := TrialRecord.read(folder, n))]


@pytest.fixture(scope="module")
def searched(run_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pd.DataFrame]:
    """A run with a search whose best three were fully trained; look at it only."""
    run = copied(run_dir, tmp_path_factory.mktemp("judged") / "run")
    return run, search(asked(run, confirm="full"))


def test_some_are_stopped_at_a_rung_and_the_rest_see_every_piece(searched: tuple[str, pd.DataFrame]) -> None:
    run, found = searched
    pieces = max(record.pieces for record in records(run))
    for record in records(run):
        assert record.epochs == 1 and record.state in ("finished", "stopped")
        assert (record.pieces == pieces) == (record.state == "finished")
        assert {(own.judge, own.seed) for own in record.judged} <= {("cold", 0), ("mixed", 0)}
    assert (found["state"] == "stopped").any() and (found["state"] == "finished").any()


def test_the_best_of_three_architectures_are_fully_trained_and_say_what_to_expect(
    searched: tuple[str, pd.DataFrame],
) -> None:
    _, found = searched
    ended = found[found["state"] == "finished"]
    full = ended[ended["confirmed_by"] == "full"]
    best = ended.sort_values("score", ascending=False).drop_duplicates("model")
    assert set(full["number"]) == set(best["number"][:3]) and full["model"].nunique() == 3
    names, scores = ended["model"].tolist(), ended["score"].to_numpy()
    trained = [place for place, by in enumerate(ended["confirmed_by"]) if by == "full"]
    known = ended["confirmed_validation_auc"].to_numpy()[trained]
    assert ended["expected"].to_numpy() == pytest.approx(expected(scores, names, trained, known).auc_C)
    assert found["expected"].notna().equals(found["state"] == "finished")


def test_the_order_is_what_is_expected_then_how_far_then_the_score(
    searched: tuple[str, pd.DataFrame],
) -> None:
    _, found = searched
    full = found["confirmed_by"] == "full"
    assert full[0] and found["expected"][0] == found["expected"][full].max()
    assert list(found["rank"]) == list(range(SAMPLES))
    ended = found["state"] == "finished"
    assert found["expected"][ended][1:].is_monotonic_decreasing
    rest = found[~ended]
    assert list(rest.index) == list(range(ended.sum(), SAMPLES))
    assert list(zip(rest["pieces"], rest["objective"], strict=True)) == sorted(
        zip(rest["pieces"], rest["objective"], strict=True), reverse=True
    )
    judges = found[["judge_cold_auc", "judge_mixed_auc"]].mean(axis=1)
    judged = found["pieces"] > 0
    pd.testing.assert_series_equal(
        judges[judged], found["objective"][judged], check_names=False, check_exact=False
    )


def test_anchors_say_what_to_expect_where_nobody_was_trained(
    searched: tuple[str, pd.DataFrame], tmp_path: Path
) -> None:
    _, found = searched
    run = copied(searched[0], tmp_path / "run")
    liked, *others = found.sort_values("score", ascending=False)["model"].unique()
    anchors = found[["candidate"]].assign(
        auc=found["model"].map({name: 0.8 for name in others} | {liked: 0.6})
    )
    anchors.to_parquet(tmp_path / "anchors.parquet")
    again = search(asked(run, judges="cold", anchors=str(tmp_path / "anchors.parquet"), name="anchored"))
    ended = again[again["expected"].notna()]
    assert (ended["confirmed_by"] == "").all() and again["expected"].iloc[
        : len(ended)
    ].is_monotonic_decreasing
    of_liked = ended["model"] == liked
    assert of_liked.any() and ended["expected"][of_liked].max() < ended["expected"][~of_liked].min()


def test_certainty_is_said_of_those_judged_to_the_end(searched: tuple[str, pd.DataFrame]) -> None:
    run, found = searched
    ended = found["state"] == "finished"
    assert found["near"].notna().equals(ended) and found["near"][ended].between(0, 1).all()
    assert load_candidate(f"{run}/search/best.yaml") == CandidateConfig.model_validate(
        json.loads(found["candidate"][0])
    )
    lines = "\n".join(summary(found, SAMPLES))
    assert "within 0.001 AUC of the best of the" in lines and "full trainings for 8 of 8 candidates" in lines


def test_costs_are_in_full_trainings(searched: tuple[str, pd.DataFrame]) -> None:
    _, found = searched
    judged = found[found["pieces"] > 0]
    assert (judged["cost"] * judged["full_seconds"]).to_numpy() == pytest.approx(judged["cpu_seconds"])
    assert (judged["cost"] > 0).all() and (judged["full_seconds"] > 0).all()


def test_the_table_fits_eighty_columns(searched: tuple[str, pd.DataFrame]) -> None:
    _, found = searched
    found = found.assign(model="a_package.of_my_own:ALongName")
    out = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    out.print(leaderboard(found))
    lines = out.export_text().splitlines()
    first = next(line for line in lines if line.startswith("│ "))
    assert str(found["number"][0]) in first and f"{found['objective'][0]:.4f}" in first


def test_the_same_command_goes_on_and_repeats_nothing(run_dir: str, tmp_path: Path) -> None:
    run = copied(run_dir, tmp_path / "run")
    search(asked(run, samples=3, judges="mixed", memory_epochs=0, scheduler="none"))
    before = records(run)
    search(asked(run, samples=4, judges="mixed", memory_epochs=0, scheduler="none"))
    after = records(run)
    assert len(after) == 4 and after[:3] == before  # seconds too
    assert all(record.epochs == 0 and record.state == "finished" for record in after)
    with pytest.raises(RunError, match="holds a different search"):
        search(asked(run, judges="cold", memory_epochs=0, scheduler="none"))


@pytest.mark.long
def test_a_spent_budget_ends_the_search_and_more_of_it_goes_on(run_dir: str, tmp_path: Path) -> None:
    run = copied(run_dir, tmp_path / "run")
    search(asked(run, scheduler="none", budget="1.5"))
    first = records(run)
    assert 0 < len(first) < SAMPLES
    found = search(asked(run, scheduler="none"))
    assert len(found) == SAMPLES and (found["state"] == "finished").all()
    ended = [record for record in first if record.state == "finished"]
    assert ended and records(run)[: len(ended)] == ended


@pytest.mark.long
def test_a_trial_that_failed_is_tried_again(run_dir: str, tmp_path: Path) -> None:
    run = copied(run_dir, tmp_path / "run")
    search(asked(run, samples=1, judges="cold", scheduler="none"))
    (good,) = records(run)
    failed = good.model_copy(update={"state": "failed", "reason": "mended since", "judged": (), "scores": ()})
    failed.write(Folder.at(f"{run}/search"))
    search(asked(run, samples=1, judges="cold", scheduler="none"))
    (again,) = records(run)
    assert again.state == "finished" and _scores(again) == _scores(good)


def _scores(record: TrialRecord) -> list[JudgeRecord]:
    return [own.model_copy(update={"seconds": 0.0}) for own in record.judged]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judges": "memory,cold"}, "memory goes alone"),
        ({"judges": "oracle"}, "contains 'oracle'"),
        ({"budget": "a lot"}, "full trainings .8. or minutes .20m."),
        ({"budget": "3", "judges": "memory"}, "give minutes"),
        ({"scheduler": "rungs", "judges": "memory"}, "needs judges"),
    ],
)
def test_what_does_not_go_together_is_told(run_dir: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(asked(run_dir, **changed))


def start(run: str, log: Path) -> subprocess.Popen[bytes]:
    words = ["search", "--run", run, "--samples", "5", "--confirm", "0", "--judges", "cold"]
    command = [sys.executable, "-m", "pipelines.cli", *words, "--epochs", "2"]
    with log.open("ab") as out:
        environment = {**os.environ, "RAY_ADDRESS": "local"}
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=environment)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_search_killed_between_two_pieces_loses_neither(run_dir: str, tmp_path: Path) -> None:
    run, log = copied(run_dir, tmp_path / "run"), tmp_path / "out"
    process = start(run, log)
    kill_when(process, lambda: sum(record.pieces for record in quietly(run)) >= 3)
    time.sleep(2)  # its workers go by themselves
    before = records(run)
    assert start(run, log).wait(400) == 0, log.read_text()
    after = records(run)
    assert len(after) == 5 and {record.state for record in after} <= {"finished", "stopped"}
    later = {record.number: record for record in after}  # a later trial may have been the first with a record
    for earlier in before:
        if earlier.state != "running":
            assert later[earlier.number] == earlier
        for seen, seen_later in zip(earlier.judged, later[earlier.number].judged, strict=False):
            assert seen_later.auc[: seen.pieces] == seen.auc
    assert load_candidate(f"{run}/search/best.yaml")


def quietly(run: str) -> list[TrialRecord]:
    """The records while they are being written."""
    try:
        return records(run)
    except (OSError, DietError):
        return []

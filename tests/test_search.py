"""A search over a tiny memory: own modules, failures, a kill, another memory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from diet_ray import layout
from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError, ResourceError, RunError
from diet_ray.evaluation.export import read_model
from diet_ray.storage import Folder
from pipelines.options.search import Search
from pipelines.options.train import Train
from pipelines.runtime.candidates import load_candidate
from pipelines.search import search
from pipelines.searching.leaderboard import leaderboard
from tests.tiny_run import FIT

ROOT = Path(__file__).parents[1]


@pytest.fixture
def own_run(run_dir: str, tmp_path: Path) -> str:
    """A run that a search may write to."""
    shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    return str(tmp_path / "run")


def asked(run: str, **changed: Any) -> Search:
    given = {
        "space": "finalnet",
        "samples": 4,
        "confirm": 1,
        "max_concurrent": 1,
        "judges": "memory",
        "fit": FIT,
    }
    return Search(run=run, **{**given, **changed})


def records(run: str) -> dict[str, dict[str, Any]]:
    paths = sorted((Path(run) / "search/trials").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


@pytest.fixture(scope="module")
def searched(run_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pd.DataFrame]:
    """A run with a search over the own space, in which some trials must fail; look at it only."""
    run = str(tmp_path_factory.mktemp("searched") / "run")
    shutil.copytree(run_dir, run, ignore=shutil.ignore_patterns("evaluation"))
    return run, search(asked(run, space="tests.own_space", samples=10, seeds=2))


def test_failing_trials_are_recorded_with_their_reason_and_end_nothing(
    searched: tuple[str, pd.DataFrame],
) -> None:
    _, found = searched
    assert len(found) == 10
    failed = found[found["state"] == "failed"]
    for reason in ("no room for this", "positive layer widths", "logits are not finite"):
        assert failed["reason"].str.contains(reason).any()
    rest = found[found["state"] != "failed"]
    assert set(rest["model"]) == {"tests.own_backbone:Wide"} and rest["auc"].notna().all()
    assert failed["auc"].isna().all()


def test_the_best_is_confirmed_and_other_commands_take_it(searched: tuple[str, pd.DataFrame]) -> None:
    run, found = searched
    confirmed = found[found["confirmed_test_auc"].notna()]
    assert list(confirmed.index) == [0] and found["auc"].max() == found["auc"][0]
    best = load_candidate(f"{run}/search/best.yaml")
    assert best == CandidateConfig.model_validate(json.loads(found["candidate"][0]))
    out = f"{run}/model"
    Train(run=run, candidate=f"{run}/search/best.yaml", out=out, fit=FIT)()
    _, card = read_model(Folder.at(out))
    # Trained with the first of the two seeds, as the confirmation was.
    first = json.loads((Path(run) / f"search/confirmed/{found['number'][0]:04d}-0.json").read_text())
    assert card["metrics"]["test"]["auc"] == first["auc"]
    with pytest.raises(RunError, match="already holds a model"):
        Train(run=run, candidate="dcn", out=out, fit=FIT)()


def test_results_are_files_that_others_read(searched: tuple[str, pd.DataFrame]) -> None:
    run, found = searched
    stored = pd.read_parquet(f"{run}/search/results.parquet")
    assert list(stored["number"]) == list(found["number"])
    assert {"candidate", "seeds", "epoch_auc", "seconds", "peak_bytes", "state", "reason"} <= set(stored)
    row = stored.iloc[0]
    assert len(row["epoch_auc"]) == row["seeds"] == 2
    assert row["peak_bytes"] > 1e6 and row["seconds"] > 0
    trained = stored[stored["epochs"] > 0]["number"]
    assert all(list((Path(run) / f"search/tensorboard/{n:04d}").glob("events*")) for n in trained)
    assert not list(Path(run).rglob("*.pkl")) and not list((Path(run) / "search/state").glob("*"))
    assert leaderboard(found).row_count == found["auc"].notna().sum()


def test_a_search_is_not_mixed_with_another(searched: tuple[str, pd.DataFrame]) -> None:
    run, _ = searched
    different = r"seeds: the run has 2, this command asks for 1; space: the run has .tests\.own_space"
    with pytest.raises(RunError, match=different):
        search(asked(run))


@pytest.mark.long
def test_more_samples_train_only_what_is_new(own_run: str) -> None:
    search(asked(own_run, scheduler="none", confirm=0, samples=2))
    before = records(own_run)
    found = search(asked(own_run, scheduler="none", confirm=0, samples=3))
    after = records(own_run)
    assert list(after) == ["0000", "0001", "0002"] and len(found) == 3
    assert {number: after[number] for number in before} == before  # the seconds too: not trained again
    assert all(record["state"] == "finished" for record in after.values())


@pytest.mark.long
def test_optuna_goes_on_from_what_is_known(own_run: str) -> None:
    search(asked(own_run, searcher="optuna", space="joint", samples=3, confirm=0))
    before = records(own_run)
    search(asked(own_run, searcher="optuna", space="joint", samples=5, confirm=0))
    after = records(own_run)
    assert len(after) == 5 and {number: after[number] for number in before} == before
    assert len({json.dumps(record["candidate"]) for record in after.values()}) == 5


def test_a_memory_of_another_schema_is_told_before_the_sweep(own_run: str) -> None:
    path = Path(own_run) / layout.memory(3)
    stored = pq.read_table(path)
    described = json.loads(stored.schema.metadata[b"diet_ray"]) | {"width": 4}
    pq.write_table(stored.replace_schema_metadata({"diet_ray": json.dumps(described)}), path)
    with pytest.raises(RunError, match="memory of another schema: dim is 4, expected 8"):
        search(asked(own_run))
    assert not records(own_run)


def test_what_cannot_run_is_told(own_run: str) -> None:
    with pytest.raises(ConfigError, match="no search space"):
        search(asked(own_run, space="nowhere.at_all"))
    with pytest.raises(ResourceError, match="a trial of 64 CPUs"):
        search(asked(own_run, threads=64))
    with pytest.raises(ResourceError, match=r"fits on none of the 0 nodes with spot.*--scale-up"):
        search(asked(own_run, nodes="spot"))
    with pytest.raises(ConfigError, match="--scale-up needs --max-concurrent and --gpus"):
        search(asked(own_run, scale_up=True, gpus=1.0, max_concurrent=None))


def start(run: str, log: Path) -> subprocess.Popen[bytes]:
    words = [
        "search",
        "--run",
        run,
        "--space",
        "joint",
        "--samples",
        "5",
        "--confirm",
        "1",
        "--judges",
        "memory",
    ]
    fit = ["--epochs", "6", "--patience", "6", "--batch-size", "8"]
    with log.open("ab") as out:
        command = [sys.executable, "-m", "pipelines.cli", *words, *fit]
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=own_environment())


def own_environment() -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": "local"}


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_search_killed_twice_repeats_no_finished_trial_and_loses_no_epoch(
    own_run: str, tmp_path: Path
) -> None:
    log = tmp_path / "out"
    for epochs in (2, 8):
        process = start(own_run, log)
        deadline = time.monotonic() + 120
        while sum(len(s) for r in records_while_running(own_run).values() for s in r["scores"]) < epochs:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(2)  # its workers go by themselves
        before = records(own_run)
        assert any(record["scores"] for record in before.values())
    assert start(own_run, log).wait(200) == 0, log.read_text()
    after = records(own_run)
    assert len(after) == 5 and all(r["state"] in ("finished", "stopped") for r in after.values())
    for number, record in before.items():
        if record["state"] != "running":
            assert after[number] == record
        for mine, earlier in zip(after[number]["scores"], record["scores"], strict=False):
            assert mine[: len(earlier)] == earlier  # epochs on record are kept, not trained anew
    assert yaml.safe_load((Path(own_run) / "search/best.yaml").read_text())["name"]


def records_while_running(run: str) -> dict[str, dict[str, Any]]:
    try:
        return records(run)
    except (OSError, ValueError):
        return {}

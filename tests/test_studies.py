"""Studies on a tiny run: complete, resumable, and read as they should be."""

import inspect
import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from diet_ray.config import CandidateConfig, RunConfig
from diet_ray.runs.run import Run
from pipelines.options.study import Name, Study
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.studies import definitions as studies
from pipelines.studies import ranked_candidates
from pipelines.studies.context import StudyContext
from pipelines.studies.definitions import STUDIES
from pipelines.studies.ranking_table import agreement_of, ranking_agreement
from pipelines.study import summary
from tests.tiny_run import FIT, TINY


@pytest.fixture
def own_run(run_dir: str, tmp_path: Path) -> str:
    """A run that a study may write to."""
    shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    return str(tmp_path / "run")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few ratios, and five candidates where the ranking has 25."""
    monkeypatch.setattr(studies, "RATIOS", (0.02, 0.05))
    monkeypatch.setattr(studies, "RANKED", ("full", "diet"))
    monkeypatch.setattr(ranked_candidates, "DRAWN", 6)
    monkeypatch.setattr(ranked_candidates, "RANKED_EACH", 1)
    monkeypatch.setattr(ranked_candidates, "NARROW", {"finalnet": {"hidden": (4,)}})


def small_candidates(folder: Path) -> str:
    """Two small candidates in place of the five published ones."""
    small = {"small": {"name": "finalnet", "options": {"hidden": [4]}}, "dcn": {"options": {"hidden": [8]}}}
    for called, candidate in small.items():
        (folder / f"{called}.yaml").write_text(json.dumps(candidate))
    return ",".join(f"{folder / called}.yaml" for called in small)


def run_study(name: str, run: str, seeds: int = 1) -> pd.DataFrame:
    candidates = small_candidates(Path(run).parent)
    Study(name=name, run=run, seeds=seeds, candidates=candidates, fit=FIT)()  # type: ignore[arg-type]
    stored = pd.read_parquet(f"{run}/studies/{name}.parquet")
    told = json.loads((Path(run) / f"studies/{name}.json").read_text())
    assert len(stored) == len(told)
    return stored


def modified(run: str) -> dict[str, float]:
    cells = [*Path(run).rglob("cells/*.json"), *Path(run).rglob("memory.parquet")]
    return {str(path): path.stat().st_mtime_ns for path in cells}


def test_every_study_tells_what_it_shows_how_long_it_takes_and_the_command() -> None:
    assert set(STUDIES) == set(get_args(Name))
    for name, recipe in STUDIES.items():
        told = inspect.getdoc(recipe) or ""
        assert "Shows:" in told
        assert "Takes" in told and f"diet-ray study {name} --run" in told


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ablation_distils_each_variant_once_with_the_reference_of_the_run(own_run: str, few: None) -> None:
    found = run_study("table4", own_run)
    assert list(found["variant"].unique()) == [
        "DIET",
        "without MF",
        "without TS",
        "without MS",
        "not carried",
        "not optimised",
    ]
    assert len(found) == 12
    reference = "reference/0003/checkpoint.json"
    memories = {(Path(own_run) / "memory/0003/memory.parquet").read_bytes()}
    for variant in (Path(own_run) / "studies/runs").iterdir():
        assert (variant / reference).read_bytes() == (Path(own_run) / reference).read_bytes()
        memories.add((variant / "memory/0003/memory.parquet").read_bytes())
    assert len(memories) == 6
    before = modified(own_run)
    assert run_study("table4", own_run).equals(found) and modified(own_run) == before
    assert summary(found).row_count == 6


@pytest.mark.long
def test_the_ratio_of_the_run_itself_is_not_distilled_again(own_run: str, few: None) -> None:
    found = run_study("ratio", own_run)
    assert set(found["variant"]) == {"2.0%", "5.0%"} and set(found["method"]) == {"diet", "random", "newest"}
    assert [path.name for path in (Path(own_run) / "studies/runs").iterdir()] == ["2.0-"]
    rows = Run.read(f"{own_run}/studies/runs/2.0-").records[-1].metrics.memory.rows
    assert rows < Run.read(own_run).records[-1].metrics.memory.rows


@pytest.mark.long
def test_references_alone_are_runs_that_figure_3_finds_again(
    own_run: str, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "ARCHITECTURES", ("finalnet", "dcn"))
    found = run_study("reference", own_run)
    assert list(found["variant"].unique()) == ["as in the run", "finalnet 5.0%", "dcn 5.0%"]
    made = {path.name for path in (Path(own_run) / "studies/runs").iterdir()}
    assert made == {"finalnet-5.0-", "dcn-5.0-"}
    before = modified(own_run)
    monkeypatch.setattr(studies, "RATIOS", (0.05,))
    again = run_study("figure3", own_run)
    assert modified(own_run) == before
    assert again.equals(found[found["variant"] != "as in the run"].reset_index(drop=True))


def test_trajectories_rise_in_steps_and_are_kept(own_run: str, few: None) -> None:
    found = run_study("figure1", own_run)
    for (method, _), curve in found.groupby(["method", "candidate"]):
        assert (np.diff(curve["steps"]) > 0).all() and (np.diff(curve["seconds"]) > 0).all()
        assert len(curve) == FIT.epochs or method == "full"
    assert run_study("figure1", own_run).equals(found)


def test_cost_has_training_and_distillation(own_run: str, few: None) -> None:
    found = run_study("table5", own_run)
    assert set(found["method"]) == {"full", "diet", "distillation"}
    assert (found["peak_bytes"] > 1e6).all() and (found["seconds_history"] > 0).all()
    full = found[found["method"] == "full"]
    assert (full["seconds_epoch"] == full["seconds_history"]).all()


@pytest.mark.long
def test_ranking_compares_candidates_of_the_search(own_run: str, few: None) -> None:
    found = run_study("ranking", own_run, seeds=2)
    assert found["candidate"].nunique() == 5 and len(found) == 20
    agreed = pd.read_parquet(f"{own_run}/studies/ranking_agreement.parquet").set_index(["among", "method"])
    assert agreed.loc[("all", "diet"), "candidates"] == 5 and agreed.loc[("good", "diet"), "candidates"] == 4
    assert -1 <= agreed.loc[("all", "diet"), "kendall"] <= 1
    assert agreed.loc[("all", "full"), "cost_ratio"] == 1 and np.isnan(agreed.loc[("all", "full"), "kendall"])


def scored(**by_method: dict[int, list[float]]) -> pd.DataFrame:
    rows = [
        {
            "method": method,
            "candidate": f"c{n}",
            "seed": seed,
            "auc": auc,
            "seconds": 10.0 if method == "full" else 2.0,
        }
        for method, seeds in by_method.items()
        for seed, scores in seeds.items()
        for n, auc in enumerate(scores)
    ]
    return pd.DataFrame(rows)


def test_agreement_by_hand() -> None:
    cells = scored(
        full={0: [0.1, 0.2, 0.3], 1: [0.1, 0.3, 0.2]},
        diet={0: [0.3, 0.2, 0.1]},
    )
    found = agreement_of(cells).set_index("method")
    # Seeds of full training disagree in one of three pairs: (2 - 1) / 3.
    assert found.loc["full", "kendall_single"] == pytest.approx(1 / 3)
    # Against seed 0 all three pairs are turned round, against seed 1 two of three.
    assert found.loc["diet", "kendall_single"] == pytest.approx((-1 - 1 / 3) / 2)
    assert found.loc["diet", "regret"] == pytest.approx(0.25 - 0.1)
    assert found.loc["diet", "cost_ratio"] == 5


def test_weak_candidates_are_told_apart() -> None:
    cells = scored(full={0: [0.5, 0.2, 0.3, 0.4]}, diet={0: [0.1, 0.2, 0.3, 0.4]})
    cells["candidate"] = cells["candidate"].replace("c0", "weak-dcn")
    found = ranking_agreement(cells).set_index(["among", "method"])["kendall"]
    assert found["good", "diet"] == 1 and found["all", "diet"] == 0
    assert set(ranking_agreement(cells[cells["candidate"] != "weak-dcn"])["among"]) == {"all"}


@pytest.mark.long
def test_a_variant_that_trains_another_reference_trains_it(drift_log: str, own_run: str) -> None:
    context = StudyContext(EvaluatedRun.open(drift_log, own_run), {}, 1, FIT)
    other = RunConfig.model_validate(
        {**TINY.model_dump(), "reference": {"name": "dcn", "options": {"hidden": [8]}}}
    )
    small = {"small": CandidateConfig(name="finalnet", options={"hidden": [4]})}
    found = context.variants({"dcn": other}, ("warmup",), small)
    assert set(found["variant"]) == {"dcn"}
    mine, its = (
        Run.read(url).records[-1].metrics.training_loss for url in (own_run, f"{own_run}/studies/runs/dcn")
    )
    assert mine != its

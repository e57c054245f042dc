"""Where the rows have one class only there is no AUC: LogLoss decides, and files hold null."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.evaluation.export import read_model, write_model
from diet_ray.evaluation.trial import TrialRecord
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.storage import Folder
from diet_ray.training.candidate import CandidateTraining, EpochScore, objective, preference
from diet_ray.training.metrics import Scores, TaskScore
from diet_ray.training.recommender import Recommender
from pipelines.evaluate import with_spread
from pipelines.runtime.comparison import _table

NAN = math.nan
SCORES = st.builds(
    EpochScore,
    auc=st.sampled_from([0.5, 0.7, NAN]),
    logloss=st.sampled_from([0.1, 0.2, 0.3]),
)


def test_a_score_is_preferred_by_auc_then_by_logloss() -> None:
    in_order = [(0.9, 0.3), (0.8, 0.1), (0.8, 0.2), (NAN, 0.1), (NAN, 0.2)]
    scores = [EpochScore(*score) for score in in_order]
    assert sorted(reversed(scores), key=preference, reverse=True) == scores


def test_the_objective_is_the_auc_or_minus_the_logloss() -> None:
    assert objective(EpochScore(0.7, 0.4)) == 0.7
    assert objective(EpochScore(NAN, 0.4)) == -0.4


def training(scores: list[EpochScore], patience: int = 2) -> CandidateTraining:
    """A training whose epochs scored so."""
    model = build_model(ModelConfig(options={"hidden": (4,)}), fields=3, dim=4, tasks=2, seed=0)
    rows = Examples(torch.randn(8, 3, 4), torch.zeros(8, 2))
    built = CandidateTraining(model, rows, rows, FitConfig(epochs=8, patience=patience), seed=0)
    built.scores = scores
    return built


@settings(deadline=None)
@given(scores=st.lists(SCORES, min_size=1, max_size=6))
def test_a_trial_reports_the_epoch_that_the_training_keeps(scores: list[EpochScore]) -> None:
    record = TrialRecord(number=1, candidate=CandidateConfig(), scores=(tuple(scores),))
    best = training(scores).best
    assert repr(record.best_until(len(scores))) == repr(scores[best])
    assert all(preference(score) < preference(scores[best]) for score in scores[:best])
    assert all(preference(score) <= preference(scores[best]) for score in scores[best:])


def test_training_stops_by_logloss_where_there_is_no_auc() -> None:
    falling = [EpochScore(NAN, 0.5), EpochScore(NAN, 0.4), EpochScore(NAN, 0.3)]
    assert training(falling).best == 2 and not training(falling).finished
    rising = [EpochScore(NAN, 0.3), EpochScore(NAN, 0.4), EpochScore(NAN, 0.5)]
    assert training(rising).best == 0 and training(rising).finished


def test_a_candidate_is_trained_on_rows_of_one_class() -> None:
    trained = training([])
    trained.run()
    assert all(math.isnan(score.auc) and score.logloss > 0 for score in trained.scores)
    again = training([])
    again.restore(trained.save())
    assert repr(again.scores) == repr(trained.scores) and again.best == trained.best


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def test_a_record_is_json_for_any_reader_and_reads_back(tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path))
    scores = ((EpochScore(NAN, 0.5), EpochScore(0.7, 0.4)),)
    TrialRecord(number=3, candidate=CandidateConfig(), scores=scores).write(folder)
    content = json.loads(folder.read(layout.trial(3)), parse_constant=refuse)
    assert content["scores"] == [[[None, 0.5], [0.7, 0.4]]]
    record = TrialRecord.read(folder, 3)
    assert record and repr(record.scores) == repr(scores)


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_json_has_null_for_a_number_that_is_not_finite(tmp_path: Path, value: float) -> None:
    folder = Folder.at(str(tmp_path))
    folder.write_json(
        "x.json", {"a": value, "b": [value, (1.5, value)], "c": {"d": value}, "e": "NaN", "f": 1}
    )
    content = json.loads(folder.read("x.json"), parse_constant=refuse)
    assert content == {"a": None, "b": [None, [1.5, None]], "c": {"d": None}, "e": "NaN", "f": 1}


def test_a_record_with_bare_nan_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path))
    record = TrialRecord(number=3, candidate=CandidateConfig(), scores=((EpochScore(NAN, 0.5),),))
    folder.write(layout.trial(3), json.dumps(record.model_dump(mode="json")).encode())
    read = TrialRecord.read(folder, 3)
    assert read and math.isnan(read.scores[0][0].auc)


@pytest.mark.parametrize("name", ["dcn", "tests.own_backbone:Shared", "tests.own_backbone:Tied"])
def test_an_exported_model_without_an_auc_reads_back(drift_log: str, tmp_path: Path, name: str) -> None:
    """Layers that share memory are exported, too."""
    log, folder, candidate = PreparedLog.open(drift_log), Folder.at(str(tmp_path)), CandidateConfig(name=name)
    shape = {"fields": len(log.fields), "dim": 8, "tasks": len(log.tasks)}
    learner = Recommender(build_model(candidate, **shape, seed=0), shape["fields"], shape["dim"])
    learner.grow(log.history[0].table_rows, torch.Generator().manual_seed(0))
    scores = Scores(NAN, 0.5, {task: TaskScore(NAN, 0.5) for task in log.tasks})
    result: Any = SimpleNamespace(after=scores, validation=scores)
    write_model(folder, learner, candidate, log, result, {"run": "x"})
    card = json.loads(folder.read("card.json"), parse_constant=refuse)
    assert card["metrics"]["test"]["auc"] is None and card["metrics"]["test"]["logloss"] == 0.5
    assert "| mean | n/a | 0.5000 |" in folder.read("README.md").decode()
    restored, _ = read_model(folder)
    for own, other in zip(restored.dense.parameters(), learner.dense.parameters(), strict=True):
        assert torch.equal(own, other)


def test_cells_without_an_auc_are_tables_of_numbers(run_dir: str) -> None:
    cell = {"method": "diet", "candidate": "dcn", "seed": 0, "logloss": 0.5, "rehearsal_weight": None}
    table = _table(Folder.at(run_dir), [{**cell, "auc": None, "auc_before": None}])
    assert (
        table["auc"].isna().all()
        and table[["auc", "auc_before", "rehearsal_weight"]].dtypes.eq("float64").all()
    )
    assert with_spread(table["auc"]) == "" and with_spread(table["logloss"]) == "0.5000"

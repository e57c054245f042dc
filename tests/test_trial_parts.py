"""A trial step by step: the calls on its trainings, what it writes, and the score it reports."""

from pathlib import Path
from typing import Any

import pytest
import torch

from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import RunError
from diet_ray.evaluation import trial as trial_module
from diet_ray.evaluation.trial import Trial, TrialData
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.storage import Folder
from diet_ray.training.candidate import CandidateTraining, EpochScore
from diet_ray.training.candidate_setup import new_candidate
from tests.distinct_blocks import HEAD

FIT = FitConfig(epochs=4, patience=4, batch_size=32, learning_rate=0.02)
CANDIDATE = CandidateConfig(name="dcn", options={"hidden": [6]}, head=HEAD, learning_rate=0.01)
NUMBER = 3


def rows(count: int, seed: int) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    emb_NFD = torch.randn(count, 3, 4, generator=draw)
    return Examples(emb_NFD, (emb_NFD[:, :2, 0] > 0).float())


DATA = TrialData(reduced=rows(90, 1), validation=rows(50, 2))


def build(candidate: CandidateConfig, seed: int) -> RankingModel:
    return new_candidate(candidate, seed, fields=3, dim=4, tasks=2)


def trial(folder: Folder, *, seeds: int = 1, fit: FitConfig = FIT, builder: Any = build) -> Trial:
    started = TrialRecord(number=NUMBER, candidate=CANDIDATE, drawn={"rate": 0.01})
    return Trial(started, DATA, fit, builder, seeds, folder)


def trained(seed: int, fit: FitConfig = FIT) -> list[EpochScore]:
    """Every epoch of a training by itself, with the candidate's own rate."""
    own = fit.model_copy(update={"learning_rate": 0.01})
    training = CandidateTraining(build(CANDIDATE, seed), DATA.reduced, DATA.validation, own, seed)
    while not training.finished:
        training.epoch()
    return training.scores


def states(folder: Folder) -> list[str]:
    return sorted(path.name for path in Path(folder.root).glob("state/*"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.at(str(tmp_path))


def stored(folder: Folder) -> TrialRecord:
    record = TrialRecord.read(folder, NUMBER)
    assert record
    return record


def test_each_seed_is_trained_as_by_itself_and_each_epoch_written(folder: Folder) -> None:
    running, expected = trial(folder, seeds=2), [trained(0), trained(1)]
    assert TrialRecord.read(folder, NUMBER) is None and not running.finished
    for epoch in range(1, 5):
        score = running.epoch()
        best = [max(scores[:epoch], key=lambda s: (s.auc, -s.logloss)) for scores in expected]
        assert score == pytest.approx([sum(values) / 2 for values in zip(*best, strict=True)], abs=1e-12)
        record = stored(folder)
        assert record == running.record and record.drawn == {"rate": 0.01}
        assert record.scores == tuple(tuple(scores[:epoch]) for scores in expected)
        assert record.state == ("finished" if epoch == 4 else "running")
        assert running.finished == (epoch == 4)
        names = ["0003-0.safetensors", "0003-1.safetensors"]
        assert states(folder) == ([] if epoch == 4 else names)


def test_seconds_add_up_and_the_peak_is_the_highest(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    readings, peaks, resets = iter([0.0, 1.0, 10.0, 13.0]), iter([50, 40]), list[bool]()
    monkeypatch.setattr(trial_module.time, "perf_counter", lambda: next(readings))
    monkeypatch.setattr(trial_module, "peak_bytes", lambda: next(peaks))
    monkeypatch.setattr(trial_module, "reset_peak", lambda: resets.append(True))
    running = trial(folder)
    assert resets == [True]
    running.epoch()
    assert (running.record.seconds, running.record.peak_bytes) == (1.0, 50)
    running.epoch()
    assert (running.record.seconds, running.record.peak_bytes) == (4.0, 50)


def test_a_record_is_there_before_the_first_model_is_built(folder: Folder) -> None:
    def check(candidate: CandidateConfig, seed: int) -> RankingModel:
        assert stored(folder).state == "running" and stored(folder).epochs == 0
        return build(candidate, seed)

    trial(folder, builder=check).epoch()


def test_a_seed_that_has_stopped_waits_for_the_others(folder: Folder) -> None:
    fit = FIT.model_copy(update={"patience": 1, "epochs": 6})
    lengths = [len(trained(seed, fit)) for seed in range(4)]
    assert len(set(lengths)) > 1
    running = trial(folder, seeds=4, fit=fit)
    while not running.finished:
        running.epoch()
    assert [len(scores) for scores in running.record.scores] == lengths
    assert running.record.epochs == max(lengths)
    assert running.record.scores == tuple(tuple(trained(seed, fit)) for seed in range(4))


def test_a_resumed_trial_restores_its_states_and_replays_its_record(folder: Folder) -> None:
    whole = [trained(0), trained(1)]
    first = trial(folder, seeds=2)
    heard = [first.epoch() for _ in range(2)]
    second = trial(folder, seeds=2)
    assert [second.epoch() for _ in range(2)] == heard
    assert second.trainings is None  # nothing was built to replay
    second.epoch()
    assert second.trainings is not None
    assert [training.scores for training in second.trainings] == [scores[:3] for scores in whole]
    # Without a state on file a seed starts from its first epoch.
    folder.fs.rm(folder / layout.trial_state(NUMBER, 1))
    third = trial(folder, seeds=2)
    for _ in range(4):
        third.epoch()
    assert third.record.scores[0] == tuple(whole[0])


def test_a_state_left_by_another_trial_of_that_number_is_not_restored(folder: Folder) -> None:
    folder.write(layout.trial_state(NUMBER, 0), b"of another candidate")
    running = trial(folder)
    running.epoch()
    assert running.record.scores == (tuple(trained(0)[:1]),)


def test_a_failure_leaves_its_reason_and_no_state(folder: Folder) -> None:
    running = trial(folder, seeds=2)
    running.epoch()
    assert len(states(folder)) == 2 and running.trainings

    def fail() -> EpochScore:
        raise ValueError("no luck")

    running.trainings[1].epoch = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no luck"):
        running.epoch()
    record = stored(folder)
    assert (record.state, record.reason) == ("failed", "ValueError: no luck")
    assert record.epochs == 1 and states(folder) == []
    again = trial(folder, seeds=2)
    assert not again.finished and again.epoch() == record.best_until(1)
    assert not again.finished
    with pytest.raises(RunError, match="ValueError: no luck"):
        again.epoch()


def test_a_stopped_trial_is_finished_once_it_is_replayed(folder: Folder) -> None:
    first = trial(folder)
    for _ in range(2):
        first.epoch()
    stored(folder).model_copy(update={"state": "stopped"}).write(folder)
    again = trial(folder)
    assert not again.finished
    again.epoch()
    assert not again.finished
    again.epoch()
    assert again.finished


def test_the_best_until_an_epoch_is_a_mean_over_seeds() -> None:
    scores = (
        (EpochScore(0.5, 0.3), EpochScore(0.7, 0.9), EpochScore(0.6, 0.1)),
        (EpochScore(0.8, 0.2), EpochScore(0.1, 0.1)),
    )
    record = TrialRecord(number=1, candidate=CANDIDATE, scores=scores)
    assert record.epochs == 3
    assert record.best_until(1) == pytest.approx((0.65, 0.25))
    assert record.best_until(2) == record.best_until(3) == pytest.approx((0.75, 0.55))
    assert TrialRecord(number=1, candidate=CANDIDATE).epochs == 0


def test_a_record_reads_back_by_its_number(folder: Folder) -> None:
    record = TrialRecord(number=12, candidate=CANDIDATE, reason="x", state="failed", seconds=2.5)
    record.write(folder)
    assert [path.name for path in Path(folder.root).glob("trials/*")] == ["0012.json"]
    assert TrialRecord.read(folder, 12) == record and TrialRecord.read(folder, 1) is None
    folder.write_json("trials/0012.json", {**record.model_dump(mode="json"), "state": "asleep"})
    with pytest.raises(RunError, match=r"trials/0012\.json"):
        TrialRecord.read(folder, 12)

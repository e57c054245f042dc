"""A trial of a search: what it records, how it goes on after a kill, how it fails."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.trial import Trial, TrialData
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.storage import Folder
from diet_ray.training.candidate_setup import new_candidate

FIT = FitConfig(epochs=4, patience=4, batch_size=32)
FINALNET = CandidateConfig(name="finalnet", options={"hidden": [8, 8]}, learning_rate=0.01)

Build = Callable[[CandidateConfig, int], RankingModel]


def build(candidate: CandidateConfig, seed: int) -> RankingModel:
    return new_candidate(candidate, seed, fields=3, dim=4, tasks=2)


def never_built(candidate: CandidateConfig, seed: int) -> RankingModel:
    raise AssertionError("a model was built for epochs that are on record")


def rows(count: int, seed: int) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    emb_NFD = torch.randn(count, 3, 4, generator=draw)
    return Examples(emb_NFD, (emb_NFD[:, :2, 0] > 0).float())


def trial(
    folder: Folder, candidate: CandidateConfig = FINALNET, *, build: Build = build, seeds: int = 1
) -> Trial:
    started = TrialRecord(number=7, candidate=candidate)
    return Trial(started, TrialData(rows(200, 1), rows(100, 2)), FIT, build, seeds, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.at(str(tmp_path))


def run_out(running: Trial) -> TrialRecord:
    while not running.finished:
        running.epoch()
    return running.record


def read(folder: Folder) -> TrialRecord:
    found = TrialRecord.read(folder, 7)
    assert found
    return found


def test_a_trial_records_every_epoch_and_leaves_no_state_behind(folder: Folder) -> None:
    record = run_out(trial(folder, seeds=2))
    assert record == read(folder) and record.state == "finished"
    assert [len(of_seed) for of_seed in record.scores] == [4, 4]
    assert record.scores[0] != record.scores[1]
    assert record.seconds > 0 and record.peak_bytes > 1e6
    assert not list(Path(folder.root).glob("state/*"))


def test_what_is_told_is_the_mean_over_seeds_of_the_best_so_far(folder: Folder) -> None:
    running = trial(folder, seeds=2)
    heard = [running.epoch().auc for _ in range(FIT.epochs)]
    wanted = [
        sum(max(score.auc for score in of_seed[: epoch + 1]) for of_seed in running.record.scores) / 2
        for epoch in range(FIT.epochs)
    ]
    assert heard == pytest.approx(wanted) and heard == sorted(heard)


@pytest.mark.parametrize("epochs_before_the_kill", [0, 1, 3])
def test_a_killed_trial_ends_as_an_undisturbed_one(
    folder: Folder, tmp_path: Path, epochs_before_the_kill: int
) -> None:
    whole = run_out(trial(Folder.at(str(tmp_path / "whole")), seeds=2))
    killed = trial(folder, seeds=2)
    for _ in range(epochs_before_the_kill):
        killed.epoch()
    again = run_out(trial(folder, seeds=2))
    assert again.scores == whole.scores and again.state == "finished"


def test_a_kill_between_state_and_record_costs_nothing(folder: Folder, tmp_path: Path) -> None:
    whole = run_out(trial(Folder.at(str(tmp_path / "whole"))))
    killed = trial(folder)
    killed.epoch()
    before = read(folder)
    killed.epoch()
    before.write(folder)  # the state is an epoch ahead of the record
    assert run_out(trial(folder)).scores == whole.scores


def test_a_finished_trial_is_told_again_without_being_trained(folder: Folder) -> None:
    first = trial(folder)
    heard = [first.epoch() for _ in range(FIT.epochs)]
    again = trial(folder, build=never_built)
    assert [again.epoch() for _ in range(FIT.epochs)] == heard and again.finished


def test_a_trial_stopped_by_the_scheduler_is_told_again_and_not_trained_on(folder: Folder) -> None:
    trial(folder).epoch()
    read(folder).model_copy(update={"state": "stopped"}).write(folder)
    again = trial(folder, build=never_built)
    again.epoch()
    assert again.finished


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (FINALNET.model_copy(update={"learning_rate": 1e30}), "DataError: logits are not finite"),
        (CandidateConfig(name="tests.own_backbone:Exploding"), "MemoryError: no room for this"),
        (CandidateConfig(name="tests.own_backbone:WrongShape"), "ConfigError: model .* maps"),
        (
            CandidateConfig(name="finalnet", options={"hidden": [-4]}),
            "ConfigError: .*hidden must be a list of positive layer widths",
        ),
    ],
)
def test_a_failure_is_raised_recorded_and_raised_again_without_a_second_try(
    folder: Folder, candidate: CandidateConfig, reason: str
) -> None:
    with pytest.raises((Exception,), match=reason.partition(": ")[2]):
        run_out(trial(folder, candidate))
    record = read(folder)
    assert record.state == "failed" and not list(Path(folder.root).glob("state/*"))
    with pytest.raises(RunError, match=reason):
        run_out(trial(folder, candidate, build=never_built))


def test_a_record_of_another_candidate_is_not_gone_on_with(folder: Folder) -> None:
    run_out(trial(folder))
    other = FINALNET.model_copy(update={"options": {"hidden": [4]}})
    record = run_out(trial(folder, other))
    assert record.candidate == other and read(folder) == record


def test_a_malformed_record_is_named(folder: Folder) -> None:
    folder.write_json("trials/0007.json", {"number": 7, "state": "asleep"})
    with pytest.raises(RunError, match=r"trials/0007\.json"):
        trial(folder)

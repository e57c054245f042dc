"""One trial of a search: a candidate, under one or more seeds, trained on the memory an epoch at a time.

A trial works in embedding space: no table, no id, so its cost does not depend on the vocabulary. Its record
and one state file per seed hold what it has done, so a search that is killed loses the running epochs only.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.trial_record import State, TrialRecord
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.storage import Folder
from diet_ray.training.candidate import CandidateTraining, EpochScore
from diet_ray.training.device import peak_bytes, reset_peak


class TrialData(NamedTuple):
    """What all trials of a search share."""

    reduced: Examples
    validation: Examples


class Trial:
    """A trial in progress; `epoch` first replays what is on record, then trains.

    Args:
        started: the record before the first epoch.
        data: memory and validation rows.
        fit: how candidates are trained.
        build: makes a candidate with the initial weights of a seed, on the device of `data`.
        seeds: number of seeds.
        folder: of the search.
    """

    def __init__(
        self,
        started: TrialRecord,
        data: TrialData,
        fit: FitConfig,
        build: Callable[[CandidateConfig, int], RankingModel],
        seeds: int,
        folder: Folder,
    ) -> None:
        stored = TrialRecord.read(folder, started.number)
        # A searcher that was killed may suggest another candidate under the same number.
        self.record = stored if stored and stored.candidate == started.candidate else started
        self.data, self.fit, self.build, self.seeds, self.folder = data, fit, build, seeds, folder
        self.replayed = 0
        self.trainings: list[CandidateTraining] | None = None
        reset_peak()

    @property
    def finished(self) -> bool:
        """Whether there is no further epoch; a failed trial is not finished, its `epoch` raises."""
        return self.replayed >= self.record.epochs and self.record.state in ("finished", "stopped")

    def epoch(self) -> EpochScore:
        """The best score so far after one more epoch, from the record or by training.

        Whatever training raises is recorded and raised again.
        """
        if self.replayed >= self.record.epochs:
            if self.record.state == "failed":
                raise RunError(self.record.reason)
            self._train()
        self.replayed += 1
        return self.record.best_until(self.replayed)

    def _train(self) -> None:
        """One more epoch on the memory."""
        with self._timed():
            trainings = self._trainings()
            for seed, training in enumerate(trainings):
                if not training.finished:
                    training.epoch()
                    self.folder.write(self._state(seed), training.save())
        done = all(training.finished for training in trainings)
        scores = tuple(tuple(training.scores) for training in trainings)
        self._update(state=self._state_after(done), scores=scores)
        if done:
            self._remove_states()

    def _state_after(self, memory_done: bool) -> State:
        """How the trial stands after an epoch on the memory."""
        return "finished" if memory_done else "running"

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Put the cost of the work within on record, or its failure."""
        started, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        except Exception as failure:
            self._update(state="failed", reason=f"{type(failure).__name__}: {failure}")
            self._remove_states()
            raise
        self.record = self.record.model_copy(
            update={
                "seconds": self.record.seconds + time.perf_counter() - started,
                "cpu_seconds": self.record.cpu_seconds + time.process_time() - cpu,
                "peak_bytes": max(self.record.peak_bytes, peak_bytes()),
            }
        )

    def _trainings(self) -> list[CandidateTraining]:
        if self.trainings is None:
            self.record.write(self.folder)
            self.trainings = [self._training(seed) for seed in range(self.seeds)]
        return self.trainings

    def _training(self, seed: int) -> CandidateTraining:
        candidate = self.record.candidate
        model, fit = self.build(candidate, seed), candidate.apply_to(self.fit)
        training = CandidateTraining(model, self.data.reduced, self.data.validation, fit, seed)
        # A state may be an epoch ahead of the record, where the kill came between the two.
        if self.record.epochs and self.folder.exists(self._state(seed)):
            training.restore(self.folder.read(self._state(seed)))
        return training

    def _update(self, **changes: object) -> None:
        self.record = self.record.model_copy(update=changes)
        self.record.write(self.folder)

    def _state(self, seed: int) -> str:
        return layout.trial_state(self.record.number, seed)

    def _remove_states(self) -> None:
        for seed in range(self.seeds):
            if self.folder.exists(self._state(seed)):
                self.folder.fs.rm(self.folder / self._state(seed))

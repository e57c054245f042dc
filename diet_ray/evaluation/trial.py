"""One trial of a search: a candidate, under one or more seeds, trained on the memory an epoch at a time.

A trial works in embedding space: no table, no id, so nothing it costs depends on the vocabulary. What it
has done is in its record and in one state file per seed, so that a search that was killed loses the running
epochs only.
"""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import RunError
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.storage import Folder
from diet_ray.strict import Strict, config_error
from diet_ray.training.candidate import CandidateTraining, EpochScore, preference
from diet_ray.training.peak_memory import forget_peak, peak_bytes

State = Literal["running", "finished", "stopped", "failed"]


class TrialRecord(Strict):
    """What is known of a trial; one JSON file."""

    number: int
    candidate: CandidateConfig
    # What a searcher suggested, by its own names, for it to learn from again.
    drawn: dict[str, str | int | float] = Field(default_factory=dict)
    state: State = "running"
    reason: str = ""  # why it failed
    scores: tuple[tuple[EpochScore, ...], ...] = ()  # per seed, per epoch
    seconds: float = 0.0  # of training and validation
    peak_bytes: int = 0

    @property
    def epochs(self) -> int:
        return max((len(of_seed) for of_seed in self.scores), default=0)

    def best_until(self, epoch: int) -> EpochScore:
        """Mean over seeds of each seed's best epoch among the first `epoch`: a curve that never falls."""
        best = [max(of_seed[:epoch], key=preference) for of_seed in self.scores]
        return EpochScore(*(sum(values) / len(best) for values in zip(*best, strict=True)))

    @staticmethod
    def path(number: int) -> str:
        return f"trials/{number:04d}.json"

    def write(self, folder: Folder) -> None:
        folder.write_json(self.path(self.number), self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Folder, number: int) -> "TrialRecord | None":
        """The record of a trial, None where there is none; RunError where it is malformed."""
        path = cls.path(number)
        if not folder.exists(path):
            return None
        try:
            return cls.model_validate(folder.read_json(path))
        except ValidationError as wrong:
            raise RunError(str(config_error(wrong, folder / path))) from wrong


class TrialData(NamedTuple):
    """What all trials of a search share."""

    reduced: Examples
    validation: Examples


class Trial:
    """A trial in progress; `epoch` goes through what is on record before it trains."""

    def __init__(
        self,
        started: TrialRecord,
        data: TrialData,
        fit: FitConfig,
        build: Callable[[CandidateConfig, int], RankingModel],
        seeds: int,
        folder: Folder,
    ) -> None:
        """`build` makes a candidate with the initial weights of a seed, on the device of `data`."""
        found = TrialRecord.read(folder, started.number)
        # A searcher that was killed may suggest another candidate under the same number.
        self.record = found if found and found.candidate == started.candidate else started
        self.data, self.fit, self.build, self.seeds, self.folder = data, fit, build, seeds, folder
        self.told = 0
        self.fittings: list[CandidateTraining] | None = None
        forget_peak()

    @property
    def finished(self) -> bool:
        """Whether no further epoch is to be told; one that failed is not finished, `epoch` raises."""
        return self.told >= self.record.epochs and self.record.state in ("finished", "stopped")

    def epoch(self) -> EpochScore:
        """Tell the next epoch, best so far: one on record as it is there, a new one after training it.

        Whatever training raises is recorded and raised again.
        """
        if self.told >= self.record.epochs:
            if self.record.state == "failed":
                raise RunError(self.record.reason)
            self._train()
        self.told += 1
        return self.record.best_until(self.told)

    def _train(self) -> None:
        started = time.perf_counter()
        try:
            fittings = self._fittings()
            for seed, fitting in enumerate(fittings):
                if not fitting.finished:
                    fitting.epoch()
                    self.folder.write(self._state(seed), fitting.save())
        except Exception as failure:
            self._note(state="failed", reason=f"{type(failure).__name__}: {failure}")
            self._drop_states()
            raise
        done = all(fitting.finished for fitting in fittings)
        self._note(
            state="finished" if done else "running",
            scores=tuple(tuple(fitting.scores) for fitting in fittings),
            seconds=self.record.seconds + time.perf_counter() - started,
            peak_bytes=max(self.record.peak_bytes, peak_bytes()),
        )
        if done:
            self._drop_states()

    def _fittings(self) -> list[CandidateTraining]:
        if self.fittings is None:
            self.record.write(self.folder)
            self.fittings = [self._fitting(seed) for seed in range(self.seeds)]
        return self.fittings

    def _fitting(self, seed: int) -> CandidateTraining:
        candidate = self.record.candidate
        fitting = CandidateTraining(
            self.build(candidate, seed), *self.data, candidate.apply_to(self.fit), seed
        )
        # A state may be an epoch ahead of the record, where the kill came between the two.
        if self.record.epochs and self.folder.exists(self._state(seed)):
            fitting.restore(self.folder.read(self._state(seed)))
        return fitting

    def _note(self, **changed: object) -> None:
        self.record = self.record.model_copy(update=changed)
        self.record.write(self.folder)

    def _state(self, seed: int) -> str:
        return f"state/{self.record.number:04d}-{seed}.safetensors"

    def _drop_states(self) -> None:
        for seed in range(self.seeds):
            if self.folder.exists(self._state(seed)):
                self.folder.fs.rm(self.folder / self._state(seed))

"""One trial of a search by judges: a few epochs on the memory, then the newest block piece by piece.

The memory is cheap and tells who cannot learn at all; the judges tell the rest apart (see
docs/results.md). After every step there is a score, by which a scheduler may stop the trial. The record holds
all that is done; a trial that was killed between two pieces learns the earlier ones again, since its tables
are not stored.
"""

from collections.abc import Callable, Mapping

from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.judges.prequential import JudgeConfig, JudgeSetting, Judging
from diet_ray.evaluation.judges.record import JudgeRecord
from diet_ray.evaluation.trial import Trial, TrialData
from diet_ray.evaluation.trial_record import State, TrialRecord
from diet_ray.models.base import RankingModel
from diet_ray.storage import Folder
from diet_ray.training.candidate import EpochScore


class JudgedTrial(Trial):
    """A trial in progress; `epoch` is a step: an epoch on the memory, or a piece before every judge.

    Args:
        started: the record before the first step.
        data: memory and validation rows.
        fit: how candidates are trained on the memory.
        build: makes a candidate with the initial weights of a seed.
        seeds: number of seeds.
        folder: of the search.
        judges: who judges, by name; at least one.
        memory_epochs: steps on the memory before them; may be 0.
        setting: what all judged candidates share.
    """

    def __init__(
        self,
        started: TrialRecord,
        data: TrialData,
        fit: FitConfig,
        build: Callable[[CandidateConfig, int], RankingModel],
        seeds: int,
        folder: Folder,
        judges: Mapping[str, JudgeConfig],
        memory_epochs: int,
        setting: JudgeSetting,
    ) -> None:
        own = fit.model_copy(update={"epochs": max(memory_epochs, 1), "patience": max(memory_epochs, 1)})
        super().__init__(started, data, own, build, seeds, folder)
        self.judges, self.memory_epochs, self.setting = judges, memory_epochs, setting
        self.judgings: list[Judging] | None = None

    @property
    def finished(self) -> bool:
        return self.replayed >= self.record.steps and self.record.state in ("finished", "stopped")

    def epoch(self) -> EpochScore:
        """The score after one more step, from the record or by learning; failures as in Trial."""
        if self.replayed >= self.record.steps:
            if self.record.state == "failed":
                raise RunError(self.record.reason)
            if self.record.epochs < self.memory_epochs:
                self._train()
            else:
                self._judge()
        self.replayed += 1
        return self.record.score_after(self.replayed)

    def _state_after(self, memory_done: bool) -> State:
        return "running"

    def _judge(self) -> None:
        """One more piece before every judge."""
        with self._timed():
            judgings = self._judgings()
            for judging in judgings:
                judging.advance()
        known = self.record.judged or self._unjudged()
        self._update(
            state="finished" if all(judging.finished for judging in judgings) else "running",
            judged=tuple(record.after(own) for record, own in zip(known, judgings, strict=True)),
        )

    def _judgings(self) -> list[Judging]:
        """A candidate before every judge, with every seed, that has learned the pieces on record."""
        if self.judgings is None:
            self.trainings = None  # what the memory taught is not needed any more
            self.judgings = [
                Judging(name, config, self.setting, self.record.candidate, seed)
                for name, config in self.judges.items()
                for seed in range(self.seeds)
            ]
            for judging in self.judgings:
                for _ in range(self.record.pieces):
                    judging.advance()
        return self.judgings

    def _unjudged(self) -> tuple[JudgeRecord, ...]:
        return tuple(JudgeRecord(judge=name, seed=seed) for name in self.judges for seed in range(self.seeds))

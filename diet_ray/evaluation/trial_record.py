"""The record of a trial: its candidate, its scores and how it ended, as one JSON file."""

from typing import Literal

from pydantic import Field, ValidationError

from diet_ray import layout
from diet_ray.config import CandidateConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.judges.record import JudgeRecord
from diet_ray.storage import Folder
from diet_ray.strict import Strict, config_error
from diet_ray.training.candidate import EpochScore, preference

State = Literal["running", "finished", "stopped", "failed"]


class TrialRecord(Strict):
    """What is known of a trial."""

    number: int
    candidate: CandidateConfig
    drawn: dict[str, str | int | float] = Field(default_factory=dict)
    """Values that a searcher suggested, by its own names; it learns from them again after a restart."""
    state: State = "running"
    reason: str = ""
    """Why the trial failed."""
    scores: tuple[tuple[EpochScore, ...], ...] = ()
    """Per seed, per epoch."""
    seconds: float = 0.0
    """Seconds of training and validation."""
    cpu_seconds: float = 0.0
    """The same in seconds of CPU, which other work on the machine does not lengthen."""
    peak_bytes: int = 0
    judged: tuple[JudgeRecord, ...] = ()
    """Per judge and seed; what each has seen, piece by piece."""

    @property
    def epochs(self) -> int:
        return max((len(scores) for scores in self.scores), default=0)

    @property
    def pieces(self) -> int:
        """Pieces of the newest block that all judges have seen."""
        return min((record.pieces for record in self.judged), default=0)

    @property
    def steps(self) -> int:
        """Epochs on the memory and pieces before the judges."""
        return self.epochs + self.pieces

    def score_after(self, step: int) -> EpochScore:
        """The score after a step: of an epoch on the memory `best_until`, of a piece the judges' mean."""
        if step <= self.epochs:
            return self.best_until(step)
        return self.judges_mean(step - self.epochs)

    def judges_mean(self, piece: int) -> EpochScore:
        """Mean over judges and seeds of the scores after a piece, counted from 1."""
        auc = [record.auc[piece - 1] for record in self.judged]
        logloss = [record.logloss[piece - 1] for record in self.judged]
        return EpochScore(sum(auc) / len(auc), sum(logloss) / len(logloss))

    def best_until(self, epoch: int) -> EpochScore:
        """Mean over seeds of each seed's best score among the first `epoch`: a curve that never falls."""
        best = [max(scores[:epoch], key=preference) for scores in self.scores]
        return EpochScore(*(sum(values) / len(best) for values in zip(*best, strict=True)))

    def write(self, folder: Folder) -> None:
        folder.write_json(layout.trial(self.number), self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Folder, number: int) -> "TrialRecord | None":
        """The record of a trial; None where there is none, RunError where it is malformed."""
        path = layout.trial(number)
        if not folder.exists(path):
            return None
        try:
            return cls.model_validate(folder.read_json(path))
        except ValidationError as wrong:
            raise RunError(str(config_error(wrong, folder / path))) from wrong

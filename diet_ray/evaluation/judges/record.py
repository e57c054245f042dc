"""What a judge has found out about a candidate: its score after every piece, and the last by rows."""

from typing import Any

import numpy as np

from diet_ray.evaluation.judges.paired import PairedScore, paired_score
from diet_ray.evaluation.judges.prequential import Judging
from diet_ray.strict import NullableFloat, Strict


class JudgeRecord(Strict):
    """A judge, a candidate and a seed."""

    judge: str
    seed: int = 0
    auc: tuple[NullableFloat, ...] = ()
    """After each piece, of the last rows learned so far, before they were learned."""
    logloss: tuple[NullableFloat, ...] = ()
    influence: tuple[float, ...] = ()
    """Of the newest of these scores, by groups of rows (`PairedScore.influence_G`)."""
    rows: int = 0
    """Learned so far."""
    seconds: float = 0.0
    """Of CPU, so far."""

    @property
    def pieces(self) -> int:
        return len(self.auc)

    @property
    def score(self) -> PairedScore:
        """The newest score; ValueError where there is none."""
        if not self.auc:
            raise ValueError(f"judge {self.judge} has no score yet")
        return PairedScore(self.auc[-1], self.logloss[-1], np.array(self.influence))

    def after(self, judging: Judging) -> "JudgeRecord":
        """The record with the score of what `judging` has learned by now."""
        newest = paired_score(judging.scored())
        changes: dict[str, Any] = {
            "auc": (*self.auc, newest.auc),
            "logloss": (*self.logloss, newest.logloss),
            "influence": tuple(float(f"{value:.4g}") for value in newest.influence_G),
            "rows": judging.rows,
            "seconds": round(judging.seconds, 3),
        }
        return self.model_copy(update=changes)


def judged_to_the_end(judging: Judging, seed: int) -> JudgeRecord:
    """The record of a candidate after all pieces."""
    record = JudgeRecord(judge=judging.name, seed=seed)
    while not judging.finished:
        judging.advance()
        record = record.after(judging)
    return record

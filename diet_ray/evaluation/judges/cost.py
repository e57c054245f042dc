"""What judging costs, in full trainings of the same candidate."""

from typing import NamedTuple

from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.log.dataset import PreparedLog


class FullCost(NamedTuple):
    """Rows that a full training learns, and those of the memory."""

    full_rows: int
    memory_rows: int

    def seconds(self, record: TrialRecord) -> float:
        """CPU seconds of a full training, from the pace at which judges' rows were learned; NaN without."""
        rows = sum(judged.rows for judged in record.judged)
        pace = sum(judged.seconds for judged in record.judged) / rows if rows else float("nan")
        return pace * self.full_rows

    def spent(self, record: TrialRecord) -> float:
        """What a trial has cost so far, in full trainings; before any judge by its row visits."""
        if record.pieces:
            return record.cpu_seconds / self.seconds(record)
        return record.epochs * max(1, len(record.scores)) * self.memory_rows / self.full_rows


def full_rows(log: PreparedLog) -> int:
    """Rows that a full training learns: all history and the subsequent block."""
    return sum(block.rows for block in log.history) + log.blocks["subsequent"].rows

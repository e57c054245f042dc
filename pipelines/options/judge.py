"""The options of `diet-ray judge`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Judge:
    """Let judges score the candidates that `diet-ray truth` has trained; rerun to resume.

    $ diet-ray judge --truth runs/truth --data data/globo --judges cold,mixed

    half: empty tables, the first half of the newest block; cold: the whole of it; mixed: tables half
    reference, half fresh; warm: the reference's tables; early: empty tables, the oldest block; users: the
    rows of an eighth of the users from the start. Each scores rows before they are learned.
    Writes TRUTH/judged/JUDGE/CANDIDATE-0.json, TRUTH/judges.parquet with a row per judge: Kendall tau, clear
    pairs, regret and cost, beside baselines, and the same with charts as TRUTH/judges.html.
    """

    truth: str
    """Directory that `diet-ray truth` wrote."""
    data: str
    """Directory of the prepared log."""
    judges: str = "cold,mixed"
    """Comma list of half, cold, mixed, warm, early, users."""
    seeds: int = 1
    """Seeds of full training: candidates that were trained with all of them count. Each seed in turn is what
    can be bought, the mean of the others is the truth; a single one is both."""
    judge_seeds: int = 1
    """Seeds of each judge; more than one tell how far its score hangs on the seed."""
    day: Literal["validation", "test"] = "validation"
    """Block of the truth. Choose judges on the validation block alone; the test block decides once."""

    def __call__(self) -> None:
        from pipelines.studies.judging import execute

        execute(self)

"""The options of `diet-ray truth`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Truth:
    """Train candidates on the whole log; rerun to resume, finished trainings are kept.

    $ diet-ray truth --data data/globo --out runs/truth --each 12 --seeds 2

    $ diet-ray truth --data data/globo --out runs/truth-earlier --each 12 --split earlier

    Candidates are draws of the joint space with learning rates in a narrow range, all architectures in turn,
    so that what has been trained is balanced whenever it is stopped. Writes OUT/cells/CANDIDATE-SEED.json,
    one per training, OUT/rows/ with logits per row, and OUT/truth.parquet and .json of all of them. One
    process of one thread; another --out may run beside it.
    """

    data: str
    """Directory of a prepared log."""
    out: str
    """Directory of the records."""
    each: int = 12
    """Candidates of each architecture."""
    seeds: int = 1
    """Seeds of each candidate: all candidates with seed 0, then all with seed 1, ..."""
    split: Literal["newest", "earlier"] = "newest"
    """newest: the blocks of the log; earlier: one block earlier (diet_ray/log/split.py)."""
    dim: int = 32
    """Dimension of an embedding."""
    known: str | None = None
    """A JSON file of full trainings of the same log (docs/truth/globo.json) that need not be repeated."""

    def __call__(self) -> None:
        from pipelines.truth import execute

        execute(self)

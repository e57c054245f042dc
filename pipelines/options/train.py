"""The options of `diet-ray train`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from diet_ray.config import FitConfig


@dataclass(frozen=True)
class Train:
    """Train a candidate from the memory of a run, then on the subsequent block, and export it.

    $ diet-ray train --run runs/globo --candidate runs/globo/search/best.yaml --out models/best

    $ diet-ray train --run runs/globo --candidate wukong --seed 1 --out models/wukong-1

    Writes to OUT all that `predict` and a server need: weights, schema, vocabularies, and a card with metrics
    and provenance. The dense part learns from the memory with the tables of the reference, then the whole
    model from the subsequent block, as in `evaluate`.
    """

    run: str
    """Directory of a run that has distilled all its blocks."""
    candidate: str
    """YAML file of `search`, an architecture's name, package.module:Class, or file.py:Class."""
    out: str
    """Directory of the exported model; new."""
    seed: int = 0
    """Seed of the initial weights and the order of batches."""
    data: str | None = None
    """Directory of the prepared log, if it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        from pipelines.train import execute

        execute(self)

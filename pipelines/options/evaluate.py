"""The options of `diet-ray evaluate`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from diet_ray.config import FitConfig
from diet_ray.evaluation.methods import METHODS
from diet_ray.model_config import BUILT_IN


@dataclass(frozen=True)
class Evaluate:
    """Train candidates on the memory of a run and on baselines; compare them on the test block.

    $ diet-ray evaluate --run runs/globo

    $ diet-ray evaluate --run runs/globo --methods warmup,random,diet,full --candidates dcn,wukong --seeds 3

    $ diet-ray evaluate --run runs/globo --candidates my_package.models:MyNet,runs/globo/search/best.yaml

    Writes RUN/evaluation/results.parquet and results.json, one row per method, candidate and seed, of all
    cells that the run has by now.
    """

    run: str
    """Directory of a run that has distilled all its blocks."""
    methods: str = ",".join(METHODS)
    """Comma list of what candidates learn in place of history."""
    candidates: str = ",".join(BUILT_IN)
    """Comma list of architectures, package.module:Class, file.py:Class, or YAML files such as best.yaml."""
    seeds: int = 3
    """Number of seeds per cell: 0, 1, ..."""
    data: str | None = None
    """Directory of the prepared log, if it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        from pipelines.evaluate import execute

        execute(self)

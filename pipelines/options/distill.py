"""The options of `diet-ray distill`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from diet_ray.evaluation.methods import PROBE_SEEDS
from pipelines.runtime.command import option
from pipelines.runtime.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Distill:
    """Distill every historical block of a prepared log into a memory; rerun to resume.

    $ diet-ray distill --data data/globo --run runs/globo

    $ diet-ray distill --config globo --data data/globo --run runs/globo-1 --seed 1 --ratio 0.02

    $ diet-ray distill --config my.yaml --data s3://bucket/log --run s3://bucket/run --resources.num-gpus 1

    The memory is RUN/memory/NNNN/memory.parquet, one per block; candidates train on the last one.
    """

    data: str
    """Directory of a prepared log."""
    run: str
    """Directory of the run; new, or one to resume."""
    config: str | None = None
    """A recipe (globo, kuairand, tmall, taobao, demo, paper, cluster), a YAML file, or the config.yaml of a
    run; options below override it."""
    reference_of: str | None = None
    """A finished run whose reference is reused instead of training one; all its settings must agree."""
    probe_seeds: int = PROBE_SEEDS
    """Seeds of the small candidates that judge the memory at the end; 0: no verdict."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()

    @classmethod
    def defaults(cls) -> "Distill":
        """The defaults of the options: those of the recipe that --config names."""
        config = option("--config")
        return cls(tyro.MISSING, tyro.MISSING, settings=load_recipe(config) if config else Recipe())

    def __call__(self) -> None:
        from pipelines.distill import execute

        execute(self)

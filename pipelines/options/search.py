"""The options of `diet-ray search`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from diet_ray.config import FitConfig

Scheduler = Literal["asha", "none"]
Searcher = Literal["random", "optuna"]


@dataclass(frozen=True)
class Search:
    """Search a space of candidate architectures on the memory of a run.

    $ diet-ray search --run runs/globo --space joint --samples 32

    $ diet-ray search --run runs/globo --samples 32 --resume

    $ diet-ray search --run runs/globo --space my_package.my_space --samples 100 --searcher optuna --name mine

    Writes RUN/search/results.parquet, one row per trial, best.yaml, which `evaluate` and `train` take, and
    tensorboard/ (to view it: `pip install tensorboard`).
    """

    run: str
    """Directory of a run that has distilled all its blocks."""
    space: str = "joint"
    """joint, dcn, dcnv2, finalnet, finalmlp, wukong, or a module with SPACE (see tune_spaces)."""
    samples: int = 32
    """Number of candidates."""
    scheduler: Scheduler = "asha"
    """asha: stop trials below the best third after as many epochs; none: run every trial to its end."""
    searcher: Searcher = "random"
    """random, or optuna: learn from earlier trials."""
    confirm: int = 3
    """Number of best candidates to train on the subsequent block, too, and score on the test block."""
    seeds: int = 1
    """Seeds per trial and per confirmation; their mean counts."""
    seed: int = 0
    """Seed of the sampler."""
    resume: bool = False
    """Resume an interrupted search, or add samples to a finished one."""
    name: str = "search"
    """Folder of the search in the run directory."""
    max_concurrent: int | None = None
    """Most trials at a time; as many as fit the cluster if left out."""
    threads: int = 1
    """CPUs per trial."""
    gpus: float | None = None
    """Share of a GPU per trial; a quarter, where there are GPUs, if left out."""
    data: str | None = None
    """Directory of the prepared log, if it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        from pipelines.search import execute

        execute(self)

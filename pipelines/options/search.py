"""The options of `diet-ray search`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from diet_ray.config import FitConfig

Scheduler = Literal["auto", "rungs", "asha", "none"]
Searcher = Literal["random", "optuna"]
CONFIRMED = 3  # candidates
MEMORY = "memory"  # the judge that is none


@dataclass(frozen=True)
class Search:
    """Search a space of candidate architectures with the memory and the newest block of a run.

    $ diet-ray search --run runs/globo --space joint --samples 60

    $ diet-ray search --run runs/globo --samples 60 --budget 8 --confirm full

    $ diet-ray search --run runs/globo --space my_package.my_space --samples 100 --searcher optuna --name mine

    Judges: half, empty tables and the first half of the newest block; cold, the whole of it; mixed, tables
    half reference, half fresh; warm, the reference's tables; early, the oldest block; users, an eighth of the
    users from the start. Each learns real rows and is scored on them before it learns them.
    --judges memory trains on the memory alone: cheaper, but no judge of good ones.

    Writes RUN/search/results.parquet, one row per trial, best.yaml, which `evaluate` and `train` take, and
    tensorboard/ (to view it: `pip install tensorboard`).
    """

    run: str
    """Directory of a run that has distilled all its blocks."""
    space: str = "joint"
    """joint, dcn, dcnv2, finalnet, finalmlp, wukong, or a module with SPACE (see tune_spaces)."""
    samples: int = 32
    """Number of candidates."""
    judges: str = "half"
    """Comma list of half, cold, mixed, warm, early, users; or memory alone."""
    memory_epochs: int = 1
    """Epochs on the memory before the judges."""
    scheduler: Scheduler = "auto"
    """rungs: stop a fifth after the memory, half after a quarter and after half of the pieces; asha: stop
    trials below the best third; none: run every trial to its end; auto: rungs, for the memory alone
    asha."""
    anchors: str | None = None
    """A results.parquet of candidates whose full training is known: columns candidate (JSON) and auc. The
    judges are checked against them and weighed by them."""
    budget: str | None = None
    """Most that all trials together may cost: full trainings (8), or minutes (20m)."""
    searcher: Searcher = "random"
    """random, or optuna: learn from earlier trials."""
    confirm: int | Literal["full"] = CONFIRMED
    """Number of best candidates to train on the memory and the subsequent block and score on the test block;
    full: train candidates on all history, first the best of each of the best architectures, then one by one
    who is expected to be the best of all."""
    full_trainings: int = CONFIRMED
    """Candidates that --confirm full trains."""
    seeds: int = 1
    """Seeds per trial and per confirmation; their mean counts."""
    seed: int = 0
    """Seed of the sampler."""
    resume: bool = False
    """Not needed: the same command resumes a search, with more samples or budget goes on with it, and tries
    again what failed."""
    name: str = "search"
    """Folder of the search in the run directory."""
    max_concurrent: int | None = None
    """Most trials at a time; as many as fit the cluster if left out."""
    threads: int = 1
    """CPUs per trial."""
    gpus: float | None = None
    """Share of a GPU per trial; a quarter, where there are GPUs, if left out."""
    nodes: str = ""
    """Custom resource of the nodes that may run trials, such as spot; any node if left out."""
    scale_up: bool = False
    """Ask an autoscaler for the nodes that trials need: --max-concurrent and --gpus say how many trials and
    what each takes, whatever the cluster has now."""
    data: str | None = None
    """Directory of the prepared log, if it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        from pipelines.search import execute

        execute(self)

"""Train one candidate from the memory of a run and export it."""

import sys
from dataclasses import dataclass
from typing import Annotated

import ray
import tyro

from actors.cells import train_candidate
from actors.connection import connect, user_errors
from diet_ray.config import FitConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.export import CARD, read_model
from diet_ray.storage import Folder, absolute
from pipelines.runtime.candidates import load_candidates
from pipelines.runtime.command import run_command
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.progress import bars, console
from pipelines.runtime.run_access import log_of


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
        evaluated, out = EvaluatedRun.open(self.data or log_of(self.run), self.run), absolute(self.out)
        (candidate,) = load_candidates([self.candidate]).values()
        if Folder.at(out).exists(CARD):
            raise RunError(f"{self.out} already holds a model; choose another directory")
        cluster = connect()
        task = train_candidate.options(num_gpus=1 if cluster.get("GPU") else 0)
        with bars() as shown, shown.bar(f"training {candidate.name}", 1, "models") as bar, user_errors():
            ray.get(task.remote(*evaluated.task_arguments(), candidate, self.seed, self.fit, out))
            bar.advance(1)
        _, card = read_model(Folder.at(out))
        test = card["metrics"]["test"]
        auc = "n/a (one class)" if test["auc"] is None else f"{test['auc']:.4f}"
        console.print(f"{out}: test AUC {auc}, LogLoss {test['logloss']:.4f}")


if __name__ == "__main__":
    sys.exit(run_command(Train, "diet-ray train"))

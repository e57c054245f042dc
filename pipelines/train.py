"""Train one candidate from the memory of a run and export it."""

import sys

import ray

from actors.cells import train_candidate
from actors.connection import connect, user_errors
from diet_ray.errors import RunError
from diet_ray.evaluation.export import CARD, read_model
from diet_ray.storage import Folder, absolute
from pipelines.options.train import Train
from pipelines.runtime.candidates import load_candidates
from pipelines.runtime.command import run_command, say_next
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.progress import bars, console
from pipelines.runtime.run_access import log_of


def execute(options: Train) -> None:
    evaluated = EvaluatedRun.open(options.data or log_of(options.run), options.run)
    out = absolute(options.out)
    (candidate,) = load_candidates([options.candidate]).values()
    if Folder.at(out).exists(CARD):
        raise RunError(f"{options.out} already holds a model; choose another directory")
    cluster = connect()
    task = train_candidate.options(num_gpus=1 if cluster.get("GPU") else 0)
    with bars() as shown, shown.bar(f"training {candidate.name}", 1, "models") as bar, user_errors():
        ray.get(task.remote(*evaluated.task_arguments(), candidate, options.seed, options.fit, out))
        bar.advance(1)
    _, card = read_model(Folder.at(out))
    test = card["metrics"]["test"]
    auc = "n/a (one class)" if test["auc"] is None else f"{test['auc']:.4f}"
    console.print(f"{out}: test AUC {auc}, LogLoss {test['logloss']:.4f}")
    say_next("predict", "--model", options.out, "--source", "rows.parquet", "--out", "scores.parquet")


if __name__ == "__main__":
    sys.exit(run_command(Train, "diet-ray train"))

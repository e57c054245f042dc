"""What every actor of a run opens: the log, the config and the checkpoints."""

from typing import Any

import ray
import torch

from diet_ray.config import RunConfig
from diet_ray.distillation.stage import new_reference
from diet_ray.log.stream.opening import open_log
from diet_ray.storage import Folder
from diet_ray.training.checkpoint import restore_weights
from diet_ray.training.learning import new_learner
from diet_ray.training.recommender import Recommender


def checkpoint_path(stage: int) -> str:
    return f"reference/{stage:04d}/checkpoint.safetensors"


def memory_path(stage: int) -> str:
    return f"memory/{stage:04d}/memory.parquet"


def scores_path(run: str, stage: int) -> str:
    """Where EL2N of all rows under a checkpoint is kept for who asks again: studies, the baseline EL2N."""
    return f"{run}/studies/scores/{stage:04d}"


class RunWorker:
    """Built from paths and small values, so that Ray can restart it anywhere."""

    def __init__(self, data: str, run: str, config: dict[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self.config = RunConfig.model_validate(config)
        self.url, self.folder = run, Folder.at(run)
        self.log = open_log(data)

    def learner(self) -> Recommender:
        return new_learner(
            new_reference(self.log, self.config, "reference"),
            self.log,
            self.config.dim,
            self.config.training,
        )

    def checkpoint(self, stage: int) -> Recommender:
        """The reference as it stood after `stage`, without its optimiser."""
        learner = self.learner()
        restore_weights(learner, self.folder.read(checkpoint_path(stage)))
        return learner


def remote(worker: type[RunWorker]) -> Any:
    """The actor class of a worker: restarted where its node is lost, its calls repeated (they may be).

    Calls are repeated for as long as the actor is restarted: it takes Ray half a minute to see that a node is
    gone, and calls fail at once until then. An actor that dies again and again ends the run.
    """
    return ray.remote(max_restarts=50, max_task_retries=-1)(worker)

"""What every actor of a run is built from, and how Ray restarts it."""

from typing import Any

import ray
import torch

from diet_ray.config import RunConfig
from diet_ray.runs.state import RunState


class RunWorker:
    """Built from paths and small values, so that Ray can restart it on any node.

    Args:
        data: URL of the log.
        run: URL of the run.
        config: of the run, as plain values.
        threads: of torch in this process.
    """

    def __init__(self, data: str, run: str, config: dict[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self.state = RunState.open(data, run, RunConfig.model_validate(config))


def remote(worker: type[RunWorker]) -> Any:
    """The actor class of a worker; it is restarted where its node is lost, and its calls are repeated.

    Calls are repeated for as long as the actor is restarted: Ray takes half a minute to notice that a node is
    gone, and calls fail at once until then. An actor that dies again and again ends the run.
    """
    return ray.remote(max_restarts=50, max_task_retries=-1)(worker)

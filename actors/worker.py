"""What every actor of a run is built from."""

from typing import Any

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

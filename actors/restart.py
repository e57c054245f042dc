"""How Ray restarts the actors of a run."""

from typing import Any

import ray

from actors.worker import RunWorker


def restartable(worker: type[RunWorker]) -> Any:
    """The actor class of a worker; it is restarted where its node is lost, and its calls are repeated.

    Calls are repeated for as long as the actor is restarted: Ray takes half a minute to notice that a node is
    gone, and calls fail at once until then. An actor that dies again and again ends the run.
    """
    return ray.remote(max_restarts=50, max_task_retries=-1)(worker)

"""Runs the pieces of a preparation over the cluster with Ray Data."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray

from actors.connection import connect, user_errors
from diet_ray.errors import DietError

NO_PROGRESS_S = 1800  # turns a hang into an error

# Called after each item: label, how many are done, of how many.
Progress = Callable[[str, int, int], None]


class Failure(NamedTuple):
    """The error of an item: raised in the task, Ray Data would print its frames and wrap it."""

    error: DietError | OSError


def quiet_data() -> None:
    """Set Ray Data up for this process: rows in order, errors as they were raised, no hang, no log."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.enable_progress_bars = False
    # Its plans and timings: we show our own progress.
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class RayMapper:
    """A Mapper (log.preparation.slices): one Ray Data task per item, results in the order of the items.

    Raises the DietError or OSError of the first item that has one, as its function raised it. Ray is joined
    or started at the first call: what is wrong before that needs no cluster.
    """

    def __init__(self, progress: Progress = lambda label, done, total: None) -> None:
        self.progress = progress

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
        if not items:
            return []
        connect()
        quiet_data()
        shared = ray.put(list(items))

        def work(row: dict[str, Any]) -> dict[str, Any]:
            try:
                return {"result": [function(ray.get(shared)[row["number"]])]}
            except (DietError, OSError) as error:
                if isinstance(error, ray.exceptions.RayError):
                    raise  # Ray's own, on which a task is tried again
                return {"result": [Failure(error)]}

        numbers = [{"number": number} for number in range(len(items))]
        results = []
        with user_errors():
            for row in ray.data.from_items(numbers, override_num_blocks=len(items)).map(work).iter_rows():
                (result,) = row["result"]
                if isinstance(result, Failure):
                    raise result.error
                results.append(result)
                self.progress(label, len(results), len(items))
        return results

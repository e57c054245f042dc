"""Runs the pieces of a preparation over the cluster with Ray Data."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray

NO_PROGRESS_S = 1800  # turns a hang into an error

# Told after each item: label, how many are done, of how many.
Told = Callable[[str, int, int], None]


def quiet_data() -> None:
    """Set Ray Data up for this process: rows in order, errors as they were raised, no hang, no talk."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.enable_progress_bars = False
    # Its plans and timings: we show our own progress.
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class RayMapper:
    """A diet_ray.log.prepare.Mapper: one Ray Data task per item, results in the order of the items."""

    def __init__(self, told: Told = lambda label, done, total: None) -> None:
        self.told = told
        quiet_data()

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
        rows = [{"number": number} for number in range(len(items))]
        held = ray.put(list(items))

        def work(row: dict[str, Any]) -> dict[str, Any]:
            return {"result": [function(ray.get(held)[row["number"]])]}

        results = []
        for row in ray.data.from_items(rows, override_num_blocks=len(rows)).map(work).iter_rows():
            results.append(row["result"][0])
            self.told(label, len(results), len(items))
        return results

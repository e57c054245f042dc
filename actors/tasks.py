"""Short tasks over the cluster."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import ray

Key = TypeVar("Key")


def as_finished(running: Mapping[Any, Key]) -> Iterator[tuple[Key, Any]]:
    """Keys of tasks (reference -> key) with their references, in the order in which they end."""
    waiting = dict(running)
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1)
        yield waiting.pop(done[0]), done[0]

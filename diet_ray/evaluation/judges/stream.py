"""Which rows of a log a judge's candidates learn, in the order of time.

Shape suffixes: N rows.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diet_ray.errors import ConfigError
from diet_ray.log.batches import EncodedRows
from diet_ray.log.dataset import Block, PreparedLog


def judged_blocks(log: PreparedLog, history: int) -> list[Block]:
    """The last `history` blocks of history and the subsequent one; all of them if `history` is larger."""
    return [*(log.history[-history:] if history else []), log.blocks["subsequent"]]


def stream_rows(log: PreparedLog, blocks: list[Block], thin: int, field: str) -> Iterator[EncodedRows]:
    """The rows of the blocks; of those the rows of one in `thin` ids of `field`.

    Raises:
        ConfigError: where the log has no such field.
    """
    if field not in log.fields:
        raise ConfigError(f"log {log.name} has no field {field!r} to thin by; it has {', '.join(log.fields)}")
    column = log.fields.index(field)
    for block in blocks:
        for rows in log.chunks(block):
            yield rows if thin == 1 else rows.take(np.flatnonzero(kept_ids(rows.id_NF[:, column], thin)))


def kept_ids(id_N: NDArray[np.int32], thin: int) -> NDArray[np.bool_]:
    """Whether an id is among the one in `thin` that are kept, by a hash: the order of ids is that of time."""
    mixed_N = id_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing
    return (mixed_N >> np.uint64(32)) % np.uint64(thin) == 0

"""Rows of a memory that a model rehearses while it learns a block."""

import torch

from diet_ray.models.examples import Examples
from diet_ray.seeding import torch_generator


class Rehearsal:
    """Memory rows mixed into every batch of a block, drawn anew each time.

    Experience replay as in continual learning (Chaudhry et al., arXiv 1902.10486): without it the steps on
    the newest rows overwrite what the memory taught.

    Args:
        memory: rows to draw from.
        share: rehearsed rows per row of the block.
        weight: of the rehearsed rows of a batch together, relative to the rows of the block.
        seed: of the draws.
    """

    def __init__(self, memory: Examples, *, share: float, weight: float, seed: int) -> None:
        self.memory, self.share, self.weight = memory, share, weight
        self.generator = torch_generator(seed, "rehearsal")
        self.rows_drawn = 0

    def draw(self, rows: int) -> Examples | None:
        """Return `share` x `rows` rows, with replacement; None where that rounds to no row."""
        count = round(self.share * rows)
        if not count:
            return None
        self.rows_drawn += count
        row_N = torch.randint(self.memory.rows, (count,), generator=self.generator)
        return self.memory.take(row_N.to(self.memory.emb_NFD.device))

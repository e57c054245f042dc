"""The processes that learn one reference together.

Shape suffixes: N rows of a batch.
"""

from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


class Peers(NamedTuple):
    """Rank and number of the processes of the default group of torch.distributed; (0, 1) needs no group."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_group(cls) -> "Peers":
        """Those of the initialised default group."""
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, rows: int) -> tuple[slice, float]:
        """This process's part of a batch and its weight in the mean over the batch; weights sum to 1.

        A batch of fewer rows than processes is learned by each of them as a whole.
        """
        if rows < self.size:
            return slice(0, rows), 1 / self.size
        start, stop = rows * self.rank // self.size, rows * (self.rank + 1) // self.size
        return slice(start, stop), (stop - start) / rows

    def gather(self, item: Item) -> list[Item]:
        """The items of all processes, in the order of their ranks, in each of them."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item)
        return items

    def sum(self, value: Tensor) -> Tensor:
        """Add up a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def exchange(self, value: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Send the first sent[0] rows of a tensor to process 0, the next sent[1] to process 1, ...

        received: rows that come from each process; they are returned in the order of ranks.
        """
        if self.size == 1:
            return value
        out = value.new_empty(sum(received), *value.shape[1:])
        dist.all_to_all_single(out, value.contiguous(), received, sent)
        return out

    def counts(self, sent: Tensor) -> Tensor:
        """How many rows each process sends here, where sent[r] go from here to process r."""
        if self.size == 1:
            return sent
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        return received


ALONE = Peers()

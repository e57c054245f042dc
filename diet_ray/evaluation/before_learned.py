"""What a recommender thinks of a row just before it learns it: progressive validation, free of charge.

Scores of rows that have not been learned yet, in the order of time, are what a deployed model's scores are
(On the Factory Floor, arXiv 2209.05310), and every row of the stream gives one. They fall out of the forward
pass that the step needs anyhow. A model with dropout is scored as it trains, with dropout.

Shape suffixes: N rows, T tasks.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from diet_ray.config import TrainingConfig
from diet_ray.log.batches import EncodedRows
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.training.learning import learn_batches, learn_block
from diet_ray.training.metrics import Scores, score_tasks
from diet_ray.training.recommender import Recommender

Array = NDArray[np.float32]


class Progress:
    """Logits and labels of the rows of a block, each before the step that learned it, in learned order."""

    def __init__(self, logit_NT: Array, label_NT: NDArray[np.uint8]) -> None:
        self.logit_NT, self.label_NT = logit_NT, label_NT

    @property
    def rows(self) -> int:
        """N."""
        return len(self.logit_NT)

    @classmethod
    def joined(cls, parts: list["Progress"]) -> "Progress":
        """The rows of all parts, in their order."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("logit_NT", "label_NT")))

    def part(self, start: int, stop: int) -> "Progress":
        """The rows [start, stop)."""
        return Progress(self.logit_NT[start:stop], self.label_NT[start:stop])

    def parts(self, count: int) -> list["Progress"]:
        """`count` consecutive parts of about equal length."""
        ends = [self.rows * number // count for number in range(count + 1)]
        return [self.part(start, stop) for start, stop in pairwise(ends)]

    def scores(self, tasks: tuple[str, ...]) -> Scores:
        """AUC and LogLoss; DataError where a logit is not finite."""
        return score_tasks(self.logit_NT, self.label_NT, tasks)


def learn_and_score(
    recommender: Recommender,
    log: EncodedLog,
    block: Block,
    training: TrainingConfig,
    seed: int,
) -> Progress:
    """`learn_block`, and what the recommender thought of each row before. The block is learned in order.

    Raises:
        ValueError: where training shuffles rows, whose labels would not be in the order of the scores.
        DataError: where training diverges.
    """
    if training.shuffle_rows > 1:
        raise ValueError(
            "rows are scored before they are learned in the order of time: shuffle_rows is not 1"
        )
    with logits_of(recommender) as logits:
        learn_block(recommender, log, block, training, seed)
    label_NT = np.concatenate([rows.label_NT for rows in log.chunks(block)])
    return Progress(np.concatenate(logits), label_NT)


def learn_and_score_batches(recommender: Recommender, batches: Iterable[EncodedRows]) -> Progress:
    """`learn_batches`, and what the recommender thought of each row before."""
    labels: list[NDArray[np.uint8]] = []

    def noted() -> Iterator[EncodedRows]:
        for batch in batches:
            labels.append(batch.label_NT)
            yield batch

    with logits_of(recommender) as logits:
        learn_batches(recommender, noted())
    return Progress(np.concatenate(logits), np.concatenate(labels))


@contextmanager
def logits_of(recommender: Recommender) -> Iterator[list[Array]]:
    """A list to which every forward pass of the dense model appends its logits."""
    logits: list[Array] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], logit_NT: Tensor) -> None:
        logits.append(logit_NT.detach().cpu().numpy())

    hook = recommender.dense.register_forward_hook(keep)
    try:
        yield logits
    finally:
        hook.remove()

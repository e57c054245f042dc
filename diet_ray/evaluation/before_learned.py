"""What a recommender thinks of a row just before it learns it: progressive validation, free of charge.

Scores of rows that have not been learned yet, in the order of time, are what a deployed model's scores are
(On the Factory Floor, arXiv 2209.05310), and every row of the stream gives one. They fall out of the forward
pass that the step needs anyhow; a model with batch norms or dropout, which trains otherwise than it scores,
needs one of its own.

Shape suffixes: N rows, T tasks.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from diet_ray.config import TrainingConfig
from diet_ray.log.batches import EncodedRows, rechunked
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.examples import predict
from diet_ray.seeding import torch_generator
from diet_ray.training.embedding import embed_rows
from diet_ray.training.learning import learn_batches
from diet_ray.training.metrics import Scores, score_tasks
from diet_ray.training.recommender import Recommender

Array = NDArray[np.float32]

# Layers that do something else while training.
UNLIKE = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.MultiheadAttention)


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
    recommender.grow(block.table_rows, torch_generator(seed, "grow", block.name))
    return learn_and_score_batches(recommender, rechunked(log.chunks(block), training.batch_size))


def learn_and_score_batches(recommender: Recommender, batches: Iterable[EncodedRows]) -> Progress:
    """`learn_batches`, and what the recommender thought of each row before."""
    labels: list[NDArray[np.uint8]] = []
    logits: list[Array] = []
    alike = trains_as_it_scores(recommender.dense)

    def noted() -> Iterator[EncodedRows]:
        for batch in batches:
            labels.append(batch.label_NT)
            if not alike:
                examples = embed_rows(recommender, batch)
                logits.append(predict(recommender.dense, examples.emb_NFD).cpu().numpy())
            yield batch

    with _kept(recommender.dense, logits) if alike else nullcontext():
        learn_batches(recommender, noted())
    return Progress(np.concatenate(logits), np.concatenate(labels))


def trains_as_it_scores(model: nn.Module) -> bool:
    """Whether the forward pass of a step is that of scoring: not with batch norms, nor with dropout."""
    return not any(isinstance(module, UNLIKE) for module in model.modules())


@contextmanager
def _kept(model: nn.Module, logits: list[Array]) -> Iterator[None]:
    """Append the logits of every forward pass to a list."""

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], logit_NT: Tensor) -> None:
        logits.append(logit_NT.detach().cpu().numpy())

    hook = model.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()

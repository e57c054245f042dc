"""Real rows through a recommender: one epoch of learning on a block, logits of a block.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diet_ray.config import TrainingConfig
from diet_ray.log.batches import EncodedRows, joined, shuffled_batches
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.base import DenseModel
from diet_ray.models.examples import Examples, predict
from diet_ray.seeding import numpy_generator, torch_generator
from diet_ray.training.metrics import Scores, score_tasks
from diet_ray.training.recommender import Recommender

Report = Callable[[int], None]  # rows done since the last call


class Rehearsal:
    """Rows of a memory to learn beside the rows of a block, `share` of them per row, drawn anew each time.

    Experience replay as in continual learning (Chaudhry et al., arXiv 1902.10486): without it the steps on
    the newest rows wash out what the memory taught. Together the rows weigh `weight` times what the rows of
    the block weigh.
    """

    def __init__(self, memory: Examples, share: float, weight: float, seed: int) -> None:
        self.memory, self.share, self.weight = memory, share, weight
        self.generator = torch_generator(seed, "rehearsal")
        self.rows_drawn = 0

    def draw(self, rows: int) -> Examples | None:
        """`share` x `rows` rows, with replacement."""
        wanted = round(self.share * rows)
        if not wanted:
            return None
        self.rows_drawn += wanted
        drawn_N = torch.randint(self.memory.rows, (wanted,), generator=self.generator)
        return self.memory.take(drawn_N.to(self.memory.emb_NFD.device))


def new_learner(
    dense: DenseModel,
    log: EncodedLog,
    dim: int,
    training: TrainingConfig,
    dense_rate: float | None = None,
) -> Recommender:
    """A recommender with empty tables; its dense part learns at `dense_rate`, None: like the tables."""
    return Recommender(
        dense,
        len(log.fields),
        dim,
        learning_rate=training.learning_rate,
        dense_rate=dense_rate,
        clip_norm=training.clip_norm,
        device=own_device(),
    )


def own_device() -> str:
    """Where this process works."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def learn_block(
    learner: Recommender,
    log: EncodedLog,
    block: Block,
    training: TrainingConfig,
    seed: int,
    report: Report = lambda rows: None,
    rehearsal: Rehearsal | None = None,
) -> float:
    """Grow the tables to `block` and learn it for one epoch; return the mean training loss.

    rehearsal: what the dense model learned before and is to keep, mixed into every batch.
    """
    learner.grow(block.table_rows, torch_generator(seed, "grow", block.name))
    batches = shuffled_batches(
        log.chunks(block),
        batch_size=training.batch_size,
        buffer_rows=training.shuffle_rows,
        draw=numpy_generator(seed, "shuffle", block.name),
    )
    total = 0.0
    for batch in batches:
        id_NF, label_NT = tensors(batch, learner.device)
        beside = (rehearsal.draw(batch.rows), rehearsal.weight) if rehearsal else ()
        total += learner.step(id_NF, label_NT, *beside) * batch.rows
        report(batch.rows)
    return total / block.rows


def tensors(rows: EncodedRows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids int64 [N, F] and labels float32 [N, T]."""
    return torch.as_tensor(rows.id_NF).long().to(device), torch.as_tensor(rows.label_NT).float().to(device)


@torch.no_grad()
def embedded(learner: Recommender, rows: EncodedRows) -> Examples:
    """Rows in the embedding space of the learner's tables; an id without a row there is out-of-vocabulary."""
    id_NF, label_NT = tensors(rows, learner.device)
    known_F = torch.tensor(learner.tables.rows, device=learner.device)
    return Examples(learner.tables(torch.where(id_NF < known_F, id_NF, 0)), label_NT)


def evaluate_block(learner: Recommender, log: EncodedLog, block: Block) -> Scores:
    """AUC and LogLoss of the learner on a block; holds its logits in memory."""
    logits, labels = [], []
    for rows in log.chunks(block):
        examples = embedded(learner, rows)
        logits.append(predict(learner.dense, examples.emb_NFD).cpu().numpy())
        labels.append(rows.label_NT)
    return score_tasks(np.concatenate(logits), np.concatenate(labels), log.tasks)


def sampled(log: EncodedLog, block: Block, rows: int, draw: np.random.Generator) -> EncodedRows:
    """At most `rows` rows of a block, uniformly without replacement, in block order."""
    if rows >= block.rows:
        return joined(list(log.chunks(block)))
    return log.rows(block, np.sort(draw.choice(block.rows, rows, replace=False)))

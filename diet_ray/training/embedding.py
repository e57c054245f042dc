"""Rows of a log in the embedding space of a recommender, and its scores on a block.

Shape suffixes: N rows, F fields, T tasks.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from diet_ray.log.batches import EncodedRows, joined
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.base import DenseModel
from diet_ray.models.examples import Examples, predict
from diet_ray.training.learning import tensors
from diet_ray.training.metrics import Scores, score_tasks


class TableRows(Protocol):
    """Tables as far as rows are looked up in them."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each table."""

    def __call__(self, id_NF: Tensor) -> Tensor:
        """Return embeddings [N, F, D]."""


class Embedder(Protocol):
    """A recommender that learns, or a checkpoint of one."""

    @property
    def tables(self) -> TableRows: ...

    @property
    def dense(self) -> DenseModel: ...

    @property
    def device(self) -> torch.device: ...


@torch.no_grad()
def embed_rows(recommender: Embedder, rows: EncodedRows) -> Examples:
    """Rows in the embedding space of the recommender; an id without a row there is out-of-vocabulary."""
    id_NF, label_NT = tensors(rows, recommender.device)
    table_rows_F = torch.tensor(recommender.tables.rows, device=recommender.device)
    return Examples(recommender.tables(torch.where(id_NF < table_rows_F, id_NF, 0)), label_NT)


def predict_block(recommender: Embedder, log: EncodedLog, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, T] of the recommender on the rows of a block, and their labels [N, T]."""
    logits, labels = [], []
    for rows in log.chunks(block):
        examples = embed_rows(recommender, rows)
        logits.append(predict(recommender.dense, examples.emb_NFD).cpu().numpy())
        labels.append(rows.label_NT)
    return np.concatenate(logits), np.concatenate(labels)


def score_block(recommender: Embedder, log: EncodedLog, block: Block) -> Scores:
    """AUC and LogLoss of the recommender on a block; holds its logits in memory."""
    return score_tasks(*predict_block(recommender, log, block), log.tasks)


def sample_rows(log: EncodedLog, block: Block, rows: int, draw: np.random.Generator) -> EncodedRows:
    """At most `rows` rows of a block, uniformly without replacement, in block order."""
    if rows >= block.rows:
        return joined(list(log.chunks(block)))
    return log.rows(block, np.sort(draw.choice(block.rows, rows, replace=False)))

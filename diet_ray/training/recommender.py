"""A recommender that learns from real rows: embedding tables under a dense ranking model.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

import torch
from torch import Tensor

from diet_ray.errors import DataError
from diet_ray.models.base import DenseModel, train_mode
from diet_ray.models.examples import Examples
from diet_ray.training.optimisers import Adam, SparseAdam
from diet_ray.training.parallel.peers import ALONE
from diet_ray.training.tables import Tables


class Recommender:
    """Tables, dense model and their optimisers: the state that one block hands to the next.

    The cost of a step depends on the batch and the dense model only: gradients of the tables are sparse and
    SparseAdam moves only the rows of the batch. Growing copies the tables, once per block. All tables live
    on one device: beyond its memory (about 1e8 rows of dimension 32 with moments on 80 GB) they are learned
    by several processes (training.parallel).

    Attributes:
        peers: who learns this recommender; most are learned by one process alone.
    """

    peers = ALONE

    def __init__(
        self,
        dense: DenseModel,
        fields: int,
        dim: int,
        *,
        learning_rate: float = 1e-3,
        dense_rate: float | None = None,
        clip_norm: float = 10.0,
        device: str = "cpu",
        tables: Tables | None = None,
    ) -> None:
        """Start with empty tables.

        Args:
            dense: the model above the embeddings.
            fields: number of tables.
            dim: dimension of an embedding.
            learning_rate: of SparseAdam over the tables.
            dense_rate: of Adam over the dense model; the tables' rate where it is None.
            clip_norm: largest joint norm of all gradients.
            device: where everything lives.
            tables: empty ones; whole tables where it is None.
        """
        self.device = torch.device(device)
        self.tables = (tables or Tables(fields, dim)).to(self.device)
        self.dense = dense.to(self.device)
        self.table_optimiser = SparseAdam(self.tables.weights(), lr=learning_rate)
        self.dense_optimiser = Adam(dense.parameters(), lr=dense_rate or learning_rate)
        self.clip_norm = clip_norm

    def grow(self, rows: tuple[int, ...], draw: torch.Generator) -> None:
        """Append rows until table f has `rows[f]`; see Tables.grow."""
        self.tables.grow(rows, self.table_optimiser, draw)

    def step(
        self, id_NF: Tensor, label_NT: Tensor, rehearsed: Examples | None = None, weight: float = 1.0
    ) -> float:
        """Take one optimiser step on a batch.

        Args:
            id_NF: rows of the tables, int64.
            label_NT: 0 or 1.
            rehearsed: rows in embedding space that the dense model learns in the same step.
            weight: of all rehearsed rows together, relative to the batch.

        Returns:
            The mean loss of the batch.

        Raises:
            DataError: where the loss is not finite.
        """
        train_mode(self.dense, len(id_NF) + (rehearsed.rows if rehearsed is not None else 0))
        emb_NFD, weight_N = self.tables(id_NF), None
        label_NT = label_NT.to(emb_NFD.dtype)
        if rehearsed is not None:
            emb_NFD = torch.cat([emb_NFD, rehearsed.emb_NFD])
            per_row = label_NT.new_full((rehearsed.rows,), weight * len(id_NF) / rehearsed.rows)
            weight_N = torch.cat([label_NT.new_ones(len(id_NF)), per_row])
            label_NT = torch.cat([label_NT, rehearsed.label_NT])
        loss = self.dense.loss(emb_NFD, label_NT, weight_N)
        if not loss.isfinite():
            raise DataError(f"training loss is {loss.item()}: lower the learning rate")
        self.table_optimiser.zero_grad()
        self.dense_optimiser.zero_grad()
        loss.backward()
        self._clip()
        self.table_optimiser.step()
        self.dense_optimiser.step()
        return loss.item()

    def _clip(self) -> None:
        """Scale all gradients so that their joint norm is at most `clip_norm`."""
        for weight in self.tables.weights():
            if weight.grad is not None:
                weight.grad = weight.grad.coalesce()
        dense = [p.grad for p in self.dense.parameters() if p.grad is not None]
        tables = [weight.grad._values() for weight in self.tables.weights() if weight.grad is not None]
        values, norm = [*dense, *tables], self._norm(dense, tables)
        if norm > self.clip_norm:
            for part in values:
                part.mul_(self.clip_norm / norm)

    def _norm(self, dense: list[Tensor], tables: list[Tensor]) -> Tensor:
        """The joint norm of the gradients of the dense model and of the tables."""
        return torch.stack([torch.linalg.vector_norm(part) for part in (*dense, *tables)]).norm()

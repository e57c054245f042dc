"""A recommender that learns from real rows: embedding tables that grow under a dense ranking model.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from typing import cast

import torch
from torch import Tensor, nn

from diet_ray.errors import DataError
from diet_ray.models.base import DenseModel, train_mode
from diet_ray.models.examples import Examples

INITIAL_DEVIATION = 1e-4  # of embeddings, as FuxiCTR has it


class Tables(nn.Module):
    """One embedding table per field; row 0 is out-of-vocabulary."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(0, dim, sparse=True) for _ in range(fields))

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(weight.shape[0] for weight in self.weights())

    def weights(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def forward(self, id_NF: Tensor) -> Tensor:
        """Return embeddings [N, F, D]; an id beyond its table is an IndexError of torch."""
        looked_up = [table(id_N) for table, id_N in zip(self.tables, id_NF.unbind(1), strict=True)]
        return torch.stack(looked_up, 1)


class Recommender:
    """Tables, dense model and their optimisers: the state that one block hands to the next.

    A step's cost depends on the batch and the dense model only: the tables' gradients are sparse and
    SparseAdam moves only the rows of the batch. Growing copies the tables, once per block. All tables live
    on one device: past its memory (about 1e8 rows of 32 with moments on 80 GB) they have to be sharded.
    """

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
    ) -> None:
        self.device = torch.device(device)
        self.tables, self.dense = Tables(fields, dim).to(self.device), dense.to(self.device)
        self.table_optimiser = torch.optim.SparseAdam(self.tables.weights(), lr=learning_rate)
        self.dense_optimiser = torch.optim.Adam(dense.parameters(), lr=dense_rate or learning_rate)
        self.clip_norm = clip_norm

    def grow(self, rows: tuple[int, ...], draw: torch.Generator) -> None:
        """Append rows N(0, 1e-4) until table f has `rows[f]`; old rows and their moments stay as they are.

        Raises DataError where a table would shrink.
        """
        for field, (weight, wanted) in enumerate(zip(self.tables.weights(), rows, strict=True)):
            missing = wanted - weight.shape[0]
            if missing < 0:
                raise DataError(f"table {field} has {weight.shape[0]} rows, cannot shrink to {wanted}")
            fresh = torch.randn(missing, weight.shape[1], generator=draw) * INITIAL_DEVIATION
            weight.data = torch.cat([weight.data, fresh.to(self.device)])
            for name, moment in self.table_optimiser.state[weight].items():
                if torch.is_tensor(moment) and moment.dim():
                    padding = moment.new_zeros(missing, weight.shape[1])
                    self.table_optimiser.state[weight][name] = torch.cat([moment, padding])
            cast(nn.Embedding, self.tables.tables[field]).num_embeddings = wanted

    def step(
        self, id_NF: Tensor, label_NT: Tensor, beside: Examples | None = None, weight: float = 1.0
    ) -> float:
        """Take one optimiser step on a batch; return its mean loss. DataError where it is not finite.

        beside: rows in embedding space that the dense model learns in the same step; together they weigh
            `weight` times what the batch weighs.
        """
        train_mode(self.dense, len(id_NF) + (beside.rows if beside is not None else 0))
        emb_NFD, label_NT, weight_N = self.tables(id_NF), label_NT.float(), None
        if beside is not None:
            emb_NFD = torch.cat([emb_NFD, beside.emb_NFD])
            each = label_NT.new_full((beside.rows,), weight * len(id_NF) / beside.rows)
            weight_N = torch.cat([label_NT.new_ones(len(id_NF)), each])
            label_NT = torch.cat([label_NT, beside.label_NT])
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
        parameters = [*self.dense.parameters(), *self.tables.weights()]
        dense_parts = [_values(p.grad) for p in parameters if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(part) for part in dense_parts]).norm()
        if norm > self.clip_norm:
            for part in dense_parts:
                part.mul_(self.clip_norm / norm)


def _values(gradient: Tensor) -> Tensor:
    """The stored numbers of a dense or coalesced sparse gradient, as a view."""
    return gradient._values() if gradient.is_sparse else gradient

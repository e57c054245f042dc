"""A recommender that several processes learn together, each a part of every batch.

Shape suffixes: N rows of the whole batch, F fields, T tasks.
"""

from typing import cast

import torch
from torch import Tensor

from diet_ray.errors import DataError
from diet_ray.models.base import DenseModel, train_mode
from diet_ray.models.examples import Examples
from diet_ray.training.parallel.batch_norm import share_batch_norms
from diet_ray.training.parallel.peers import Peers
from diet_ray.training.parallel.table_slices import SlicedTables
from diet_ray.training.recommender import Recommender


class ParallelRecommender(Recommender):
    """One of the processes; all of them call `grow`, `step` and `tables` together, with the same arguments.

    For the same batches the state is that of one process up to rounding, and on the same number of processes
    the same bit for bit. The dense model is the same in all of them; it must depend on other rows through
    batch norms alone, as every model here does.
    """

    def __init__(
        self,
        dense: DenseModel,
        fields: int,
        dim: int,
        peers: Peers,
        *,
        learning_rate: float,
        clip_norm: float,
        device: str,
    ) -> None:
        share_batch_norms(dense, peers)
        tables = SlicedTables(fields, dim, peers)
        super().__init__(
            dense,
            fields,
            dim,
            learning_rate=learning_rate,
            clip_norm=clip_norm,
            device=device,
            tables=tables,
        )
        self.peers = peers

    def step(
        self, id_NF: Tensor, label_NT: Tensor, rehearsed: Examples | None = None, weight: float = 1.0
    ) -> float:
        """Take one optimiser step on a batch, the same one in every process; nothing is rehearsed.

        Returns:
            The mean loss of the whole batch.

        Raises:
            DataError: in all processes, where the loss is not finite.
        """
        assert rehearsed is None, "only candidates rehearse, and they learn in one process"
        tables = cast(SlicedTables, self.tables)
        own, share = self.peers.share(len(id_NF))
        train_mode(self.dense, len(id_NF))
        fetched = tables.fetch(id_NF[own])
        emb_NFD = fetched.emb_NFD
        loss = self.dense.loss(emb_NFD, label_NT[own].to(emb_NFD.dtype)) * share
        self.table_optimiser.zero_grad()
        self.dense_optimiser.zero_grad()
        loss.backward()
        total = self._sum_gradients(loss.detach())
        if not total.isfinite():
            raise DataError(f"training loss is {total.item()}: lower the learning rate")
        tables.set_gradients(fetched)
        self._clip()
        self.table_optimiser.step()
        self.dense_optimiser.step()
        return total.item()

    def _sum_gradients(self, loss: Tensor) -> Tensor:
        """Add up the dense gradients over the processes, and the loss, which is returned."""
        values = [loss.reshape(1)]
        values += [p.grad for p in self.dense.parameters() if p.grad is not None]
        for dtype in dict.fromkeys(value.dtype for value in values):
            alike = [value for value in values if value.dtype == dtype]
            flat = self.peers.sum(torch.cat([value.reshape(-1) for value in alike]))
            for value, part in zip(alike, flat.split([value.numel() for value in alike]), strict=True):
                value.copy_(part.view(value.shape))
        return values[0][0]

    def _norm(self, dense: list[Tensor], tables: list[Tensor]) -> Tensor:
        """The joint norm; gradients of the tables lie in slices, those of the dense model in each process."""
        slices = torch.stack([part.square().sum() for part in tables]).sum()
        return (self.peers.sum(slices) + sum(part.square().sum() for part in dense)).sqrt()

"""Embedding tables of which each process holds every n-th row, and the exchange of rows and gradients.

An own exchange and not TorchRec's: its row-wise sharding has no Adam on CPU, each of its releases is tied to
one minor version of torch, and its checkpoints cannot be read by another number of processes. Here a slice
is learned by SparseAdam as whole tables are, so a checkpoint does not show how many processes wrote it.

Shape suffixes: N rows, F fields, D embedding dim, U distinct (id, field) pairs of this process's rows, Q
pairs that all processes want from this one.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diet_ray.training.parallel.peers import Peers
from diet_ray.training.tables import Tables


class SlicedTables(Tables):
    """Rows id % peers.size == peers.rank of every table; looking rows up is collective."""

    def __init__(self, fields: int, dim: int, peers: Peers) -> None:
        super().__init__(fields, dim)
        self.peers, self.first, self.stride = peers, peers.rank, peers.size
        self._rows = [0] * fields

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each table, those of all processes together."""
        return tuple(self._rows)

    def put(self, field: int, rows: int, weight: Tensor) -> None:
        super().put(field, rows, weight)
        self._rows[field] = rows

    def grow(self, rows: tuple[int, ...], optimiser: torch.optim.Optimizer, draw: torch.Generator) -> None:
        super().grow(rows, optimiser, draw)
        self._rows = list(rows)

    def forward(self, id_NF: Tensor) -> Tensor:
        """Return embeddings [N, F, D]; every process of the group calls it together, with rows of its own."""
        return self.fetch(id_NF).emb_NFD

    def fetch(self, id_NF: Tensor) -> "Fetched":
        """Get the rows of this process's part of a batch from whoever holds them."""
        fields, peers = id_NF.shape[1], self.peers
        key_NF = id_NF * fields + torch.arange(fields, device=id_NF.device)
        key_U, place_NF = torch.unique(key_NF, return_inverse=True)
        owner_U = key_U // fields % peers.size
        order_U = torch.argsort(owner_U, stable=True)
        sent = torch.bincount(owner_U, minlength=peers.size)
        received = peers.counts(sent)
        counts = (sent.tolist(), received.tolist())
        wanted_Q = peers.exchange(key_U[order_U], *counts)
        found_QD = self._held(wanted_Q)
        leaf_UD = peers.exchange(found_QD, counts[1], counts[0]).requires_grad_(torch.is_grad_enabled())
        rank_U = torch.empty_like(order_U)
        rank_U[order_U] = torch.arange(len(order_U), device=order_U.device)
        emb_NFD = nn.functional.embedding(rank_U[place_NF], leaf_UD)
        return Fetched(emb_NFD, leaf_UD, wanted_Q, counts[0], counts[1])

    def set_gradients(self, fetched: "Fetched") -> None:
        """Bring the gradients of fetched rows to whoever holds them, where they become those of the slice."""
        assert fetched.leaf_UD.grad is not None
        grad_QD = self.peers.exchange(fetched.leaf_UD.grad, fetched.sent, fetched.received)
        for weight, wanted in zip(self.weights(), self._by_field(fetched.wanted_Q), strict=True):
            held = fetched.wanted_Q[wanted] // len(self.tables) // self.stride
            gradient = torch.sparse_coo_tensor(
                held[None], grad_QD[wanted], weight.shape, check_invariants=False
            )
            weight.grad = gradient.coalesce()

    @torch.no_grad()
    def _held(self, key_Q: Tensor) -> Tensor:
        weights = self.weights()
        found_QD = weights[0].new_empty(len(key_Q), weights[0].shape[1])
        for weight, wanted in zip(weights, self._by_field(key_Q), strict=True):
            found_QD[wanted] = weight[key_Q[wanted] // len(weights) // self.stride]
        return found_QD

    def _by_field(self, key_Q: Tensor) -> tuple[Tensor, ...]:
        """The places of each field's keys, in order."""
        fields = len(self.tables)
        field_Q = key_Q % fields
        counts = torch.bincount(field_Q, minlength=fields).tolist()
        return torch.argsort(field_Q, stable=True).split(counts)


class Fetched(NamedTuple):
    """Rows of a batch, and the way back for their gradients."""

    emb_NFD: Tensor
    leaf_UD: Tensor  # distinct rows, a leaf of the graph
    wanted_Q: Tensor  # keys that were wanted from this process, in the order of who wanted them
    sent: list[int]  # keys that this process wanted from each other one
    received: list[int]  # keys that each other one wanted from this process

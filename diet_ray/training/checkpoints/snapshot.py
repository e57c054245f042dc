"""The reference as a stage left it, for those who score and embed: table rows are read when they are met.

Shape suffixes: N rows, F fields, D embedding dim, K ids.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_ray.models.base import DenseModel
from diet_ray.training.checkpoints.restoring import check_tables, restore_dense
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.device import default_device


class Snapshot(NamedTuple):
    """A dense model over the tables of a checkpoint, which scores and embeds.

    Holds the table rows of the ids that it has met, whatever the size of the tables.
    """

    dense: DenseModel
    tables: "MetRows"
    device: torch.device

    @classmethod
    def of(cls, stored: StoredCheckpoint, dense: DenseModel, *, fields: int, dim: int) -> "Snapshot":
        """The checkpoint itself; `dense`, a model of its architecture, takes its weights.

        Raises RunError where the checkpoint is damaged or of another architecture or log.
        """
        restore_dense(dense, stored.dense())
        return cls.under(dense.to(default_device()), stored, fields=fields, dim=dim)

    @classmethod
    def under(cls, dense: DenseModel, stored: StoredCheckpoint, *, fields: int, dim: int) -> "Snapshot":
        """The tables of the checkpoint under another dense model, on this process's device."""
        check_tables(stored, fields=fields, dim=dim)
        device = torch.device(default_device())
        return cls(dense, MetRows(stored, device), device)


class MetRows:
    """The tables of a checkpoint as far as their ids were met."""

    def __init__(self, stored: StoredCheckpoint, device: torch.device) -> None:
        self.rows = stored.table_rows
        self._fields = [_Field(stored, field, device) for field in range(len(stored.table_rows))]

    def __call__(self, id_NF: Tensor) -> Tensor:
        """Return embeddings [N, F, D]."""
        ids = id_NF.cpu().numpy()
        return torch.stack([field(ids[:, number]) for number, field in enumerate(self._fields)], 1)


class _Field:
    """The rows of one table that were met, in the order of their ids."""

    def __init__(self, stored: StoredCheckpoint, field: int, device: torch.device) -> None:
        self.stored, self.field, self.device = stored, field, device
        self.id_K = np.empty(0, np.int64)
        self.weight_KD = torch.empty(0, stored.dim, dtype=torch.float32, device=device)

    def __call__(self, id_N: NDArray[np.int64]) -> Tensor:
        place_N = np.searchsorted(self.id_K, id_N)
        known_N = place_N < len(self.id_K)
        known_N[known_N] = self.id_K[place_N[known_N]] == id_N[known_N]
        if not known_N.all():
            self._read(np.unique(id_N[~known_N]))
            place_N = np.searchsorted(self.id_K, id_N)
        return self.weight_KD[torch.from_numpy(place_N).to(self.device)]

    def _read(self, new_K: NDArray[np.int64]) -> None:
        """Read rows that were not met before and put them in their places."""
        read_KD = self.stored.rows(self.field, new_K).weight_KD.to(self.device)
        joined_K = np.concatenate([self.id_K, new_K])
        order_K = np.argsort(joined_K, kind="stable")  # a merge: both parts are in order
        self.id_K = joined_K[order_K]
        place_K = torch.from_numpy(order_K).to(self.device)
        self.weight_KD = torch.cat([self.weight_KD, read_KD])[place_K]

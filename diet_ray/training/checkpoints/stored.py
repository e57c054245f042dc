"""A stored checkpoint, of which whoever reads it takes the rows that it needs.

Shape suffixes: K rows to read, D embedding dim.
"""

import re
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_ray import layout
from diet_ray.errors import RunError
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.manifest import Manifest, Segment
from diet_ray.training.checkpoints.tensor_file import TensorFile

MOMENTS = ("exp_avg", "exp_avg_sq")


class Rows(NamedTuple):
    """Rows of a table."""

    weight_KD: Tensor
    moments: dict[str, Tensor]  # of SparseAdam, [K, D] each; empty where not asked for


class StoredCheckpoint:
    """The reference after a stage.

    Attributes:
        table_rows: rows of each table.
        steps: optimiser steps of each table; None where it was never trained.
        dim: of an embedding.
    """

    def __init__(self, folder: Folder, stage: int) -> None:
        """Open it; DataError where the stage has none, RunError where it is damaged."""
        self.folder, self.stage = folder, stage
        manifest = Manifest.read(folder, stage)
        if manifest is None:
            self._open_single_file()
            return
        self.table_rows, self.steps, self.dim = manifest.table_rows, manifest.steps, manifest.dim
        self._dense = TensorFile(folder, manifest.dense.path)
        # The newest first.
        self._parts: dict[int, list[_Part]] = {field: [] for field in range(len(self.table_rows))}
        for shard in reversed(manifest.shards):
            file = TensorFile(folder, shard.path)
            for segment in shard.segments:
                self._parts[segment.field].append(_Part(file, segment))

    def _open_single_file(self) -> None:
        """The form of version 0.1: everything in one file."""
        self._dense = file = TensorFile(self.folder, layout.single_file_checkpoint(self.stage))
        shapes = {name: place.shape for name, place in file.places.items()}
        fields = 0
        while f"tables.{fields}" in shapes:
            fields += 1
        self.table_rows = tuple(shapes[f"tables.{field}"][0] for field in range(fields))
        self.dim = shapes["tables.0"][1] if fields else 0
        steps = file.tensors(name for name in shapes if re.fullmatch(r"tables\.\d+\.step", name))
        counts = (steps.get(f"tables.{field}.step") for field in range(fields))
        self.steps = tuple(None if count is None else int(count) for count in counts)
        self._parts = {}
        for field, (rows, step) in enumerate(zip(self.table_rows, self.steps, strict=True)):
            segment = Segment(field=field, rows=rows, first=0, moments=step is not None)
            self._parts[field] = [_Part(file, segment)]

    def dense(self) -> dict[str, Tensor]:
        """State of the dense model and its optimiser by name: dense.*, dense.*.exp_avg, ..."""
        return self._dense.tensors(name for name in self._dense.places if name.startswith("dense."))

    def rows(self, field: int, id_K: NDArray[np.int64], *, moments: bool = False) -> Rows:
        """Rows of a table by their distinct, ascending ids.

        Raises:
            DataError: where a file is missing.
            RunError: where a file is damaged, or no file has a row.
        """
        kinds = ("", *(f".{name}" for name in MOMENTS)) if moments else ("",)
        dtype = self._dtype(field)
        read = {kind: torch.zeros(len(id_K), self.dim, dtype=dtype) for kind in kinds}
        open_K = np.arange(len(id_K))
        for part in self._parts[field]:
            if not len(open_K):
                break
            found, place = part.find(id_K[open_K])
            row_K = torch.from_numpy(open_K[found])
            for kind in kinds:
                if len(row_K) and (not kind or part.segment.moments):
                    read[kind][row_K] = part.file.rows(f"tables.{field}{kind}", place)
            open_K = open_K[~found]
        if len(open_K):
            raise RunError(
                f"checkpoint is damaged: {self.folder / layout.checkpoint(self.stage)} has no row "
                f"{id_K[open_K[0]]} of table {field}"
            )
        return Rows(read[""], {name: read[f".{name}"] for name in MOMENTS if moments})

    def _dtype(self, field: int) -> torch.dtype:
        """As the table was learned, whatever the default of this process."""
        parts = self._parts[field]
        return parts[0].file.places[f"tables.{field}"].dtype if parts else torch.float32


class _Part:
    """A segment in its file."""

    def __init__(self, file: TensorFile, segment: Segment) -> None:
        self.file, self.segment = file, segment

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        name = f"tables.{self.segment.field}.ids"
        return self.file.tensors([name])[name].numpy()

    def find(self, id_K: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which of the ids the segment has, and the rows of those within it."""
        first, rows = self.segment.first, self.segment.rows
        if first is not None:
            place_K, rest_K = np.divmod(id_K - first, self.segment.stride)
            found = (rest_K == 0) & (place_K >= 0) & (place_K < rows)
        else:
            place_K = np.minimum(np.searchsorted(self._ids, id_K), rows - 1)
            found = self._ids[place_K] == id_K
        return found, place_K[found]

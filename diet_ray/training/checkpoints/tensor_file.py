"""A safetensors file of which single tensors, or single rows of one, are read.

Shape suffixes: K rows to read, R rows of the tensor, D its width.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_ray.errors import DataError, RunError
from diet_ray.storage import Folder

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
FIRST_READ = 1 << 14  # bytes that hold the header of most files
MOST_HEADER = 100_000_000  # bytes, the limit of safetensors itself
# Rows that lie closer are read in one request with what is between them: a request to an object store takes
# as long as reading this much.
GAP_BYTES = 1 << 18


class Place(NamedTuple):
    """Where a tensor lies in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # bytes from the start of the file

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """The file at `path` of a folder; RunError names it where it is damaged, DataError where missing."""

    def __init__(self, folder: Folder, path: str) -> None:
        self.folder, self.path = folder, path

    @cached_property
    def places(self) -> dict[str, Place]:
        """Every tensor by its name."""
        content = self._ranges([0], [FIRST_READ], whole=False)[0]
        length = int.from_bytes(content[:8], "little")
        if len(content) < 8 or length > MOST_HEADER:
            raise self._damaged("its header is too long or cut short")
        if len(content) < 8 + length:
            content = self._ranges([0], [8 + length])[0]
        try:
            header = json.loads(content[8 : 8 + length])
            return {
                name: Place(DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + start)
                for name, entry in header.items()
                if name != "__metadata__"
                for start, _ in [entry["data_offsets"]]
            }
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise self._damaged(f"its header cannot be read: {broken}") from broken

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Whole tensors by name; KeyError where there is none of a name."""
        places = {name: self.places[name] for name in names}
        spans = [(place.start, place.start + place.size) for place in places.values()]
        content = self._ranges([start for start, _ in spans], [stop for _, stop in spans])
        parts = zip(places.items(), content, strict=True)
        return {name: _decoded(part, place.dtype).reshape(place.shape) for (name, place), part in parts}

    def rows(self, name: str, place_K: NDArray[np.int64]) -> Tensor:
        """Rows of a tensor [R, D] by their ascending numbers; [K, D]. Reads little more than those rows."""
        place = self.places[name]
        if not len(place_K):
            return torch.empty(0, *place.shape[1:], dtype=place.dtype)
        width = prod(place.shape[1:]) * place.dtype.itemsize
        if place_K[-1] >= place.shape[0]:
            raise self._damaged(f"{name} has {place.shape[0]} rows, row {place_K[-1]} is missing")
        cut = np.flatnonzero(np.diff(place_K) * width > GAP_BYTES) + 1
        runs = np.split(place_K, cut)
        starts = [place.start + int(run[0]) * width for run in runs]
        stops = [place.start + (int(run[-1]) + 1) * width for run in runs]
        parts = [
            _decoded(part, place.dtype).reshape(-1, *place.shape[1:])[torch.from_numpy(run - run[0])]
            for run, part in zip(runs, self._ranges(starts, stops), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _ranges(self, starts: list[int], stops: list[int], whole: bool = True) -> list[bytes]:
        """Bytes [start, stop) of the file for each pair; all in flight together where the store can do it."""
        path = self.folder / self.path
        try:
            paths = [path] * len(starts)
            content = self.folder.fs.cat_ranges(paths, starts, stops, on_error="raise")
        except FileNotFoundError as missing:
            raise DataError(f"{path} does not exist") from missing
        if whole and any(len(c) != b - a for c, a, b in zip(content, starts, stops, strict=True)):
            raise self._damaged("it is cut short")
        return content

    def _damaged(self, why: str) -> RunError:
        return RunError(f"checkpoint is damaged: {self.folder / self.path}: {why}")


def _decoded(content: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)

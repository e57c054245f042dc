"""What a checkpoint consists of: its own files, and those of the stages that it is an increment over."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from pydantic import ValidationError

from diet_ray import layout
from diet_ray.errors import RunError
from diet_ray.storage import FileStamp, Folder
from diet_ray.strict import Strict

FORMAT = 1
FullEvery = int | Literal["auto"]


class Segment(Strict):
    """Rows of one table in a file: tensors tables.F [rows, dim] and its moments tables.F.exp_avg, ..."""

    field: int
    rows: int
    first: int | None
    """Id of the first row, where ids are first, first + stride, ...; None: tensor tables.F.ids has them."""
    stride: int = 1
    moments: bool
    """Whether the table had been trained; without, its moments are zero."""


class Shard(Strict):
    """A file of rows."""

    path: str
    """Below the run directory."""
    size: int
    sha256: str
    segments: tuple[Segment, ...]

    @property
    def stamp(self) -> FileStamp:
        return FileStamp(self.path, self.size, self.sha256)


class Manifest(Strict):
    """checkpoint.json of a stage."""

    format: int = FORMAT
    dim: int
    table_rows: tuple[int, ...]
    steps: tuple[int | None, ...]
    """Optimiser steps of each table; None where it was never trained."""
    dense: Shard
    """The file of the dense model and its optimiser; it has no segments."""
    shards: tuple[Shard, ...]
    """Files of rows, the full checkpoint's first; of a row in several the last counts."""
    increments: int
    """Stages since the full checkpoint, this one included; 0: it is full."""
    increment_rows: int
    """Rows in those stages' files."""

    @property
    def files(self) -> tuple[FileStamp, ...]:
        """Every file that restoring reads, besides the manifest."""
        return (*(shard.stamp for shard in self.shards), self.dense.stamp)

    @property
    def stages(self) -> set[int]:
        """The stages whose files restoring reads."""
        numbers = (layout.stage_number(stamp.path.split("/")[1]) for stamp in self.files)
        return {number for number in numbers if number is not None}

    def content(self) -> bytes:
        """The manifest as its file holds it."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def read(cls, folder: Folder, stage: int) -> "Manifest | None":
        """The manifest of a stage; None where it has none, as up to version 0.1.

        Raises:
            RunError: where it is damaged or of another format.
        """
        path = layout.checkpoint(stage)
        return cls.parse(folder.read(path), folder / path) if folder.exists(path) else None

    @classmethod
    def parse(cls, content: bytes, path: str) -> "Manifest":
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as broken:
            raise RunError(f"checkpoint is damaged: {path} is no manifest: {broken}") from broken
        if manifest.format != FORMAT:
            raise RunError(f"{path} has format version {manifest.format}; supported: {FORMAT}")
        return manifest


@lru_cache(maxsize=4096)
def checkpoint_stages(folder: Folder, stage: int) -> frozenset[int]:
    """The stages whose files the checkpoint of a committed stage needs, itself included."""
    manifest = Manifest.read(folder, stage)
    return frozenset({stage} | (manifest.stages if manifest else set()))


def built_on(folder: Folder, stage: int) -> list[FileStamp]:
    """The files of earlier stages that the checkpoint of a stage builds on; RunError as Manifest.read."""
    own, manifest = layout.stage_folder("reference", stage), Manifest.read(folder, stage)
    stamps = manifest.files if manifest else ()
    return [stamp for stamp in stamps if not stamp.path.startswith(f"{own}/")]


def is_due(every: FullEvery, before: Manifest | None, table_rows: Sequence[int], changed_rows: int) -> bool:
    """Whether a full checkpoint is due, where an increment would have `changed_rows`.

    every: of n stages one is full; auto: a full one comes once the increments since the last have as many
    rows. What is written then is at most twice what was touched, over the whole of a run, and what restoring
    reads at most twice the tables.
    """
    if before is None:
        return True
    if every == "auto":
        return before.increment_rows + changed_rows >= sum(table_rows)
    return before.increments + 1 >= every

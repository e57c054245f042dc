"""Writes a checkpoint: the rows that a stage changed, or all of them, in shards; the dense model whole.

Shape suffixes: K rows, R rows of a table that are held here, D embedding dim.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_ray import layout
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.storage import FileStamp, Folder
from diet_ray.training.checkpoints.manifest import FullEvery, Manifest, Segment, Shard, is_due
from diet_ray.training.checkpoints.stored import MOMENTS
from diet_ray.training.recommender import Recommender
from diet_ray.training.serialization import to_safetensors

SHARD_BYTES = 1 << 27  # of a file of rows: what is held beside the tables while they are written


class TableSlice(NamedTuple):
    """The rows of a table that a process holds: ids first, first + stride, ..."""

    weight_RD: Tensor
    moments: dict[str, Tensor]  # of SparseAdam, [R, D] each; empty where it was never trained
    first: int = 0
    stride: int = 1

    def owned(self, id_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the ids whose rows are held here."""
        return id_K if self.stride == 1 else id_K[id_K % self.stride == self.first]


def touched_rows(log: EncodedLog, block: Block, rows_before: Sequence[int]) -> list[NDArray[np.int64]]:
    """Ids of each table that learning `block` changes, ascending: those of its rows, and those that are new.

    rows_before: rows of each table before the block.
    """
    marks = [np.arange(rows) >= before for rows, before in zip(block.table_rows, rows_before, strict=True)]
    for chunk in log.chunks(block):
        for field, mark in enumerate(marks):
            mark[chunk.id_NF[:, field]] = True
    return [np.flatnonzero(mark) for mark in marks]


def table_slices(learner: Recommender) -> list[TableSlice]:
    """The rows that a learner holds of each table."""
    first, stride, slices = learner.tables.first, learner.tables.stride, []
    for weight in learner.tables.weights():
        state = learner.table_optimiser.state.get(weight, {})
        moments = {name: state[name] for name in MOMENTS if name in state}
        slices.append(TableSlice(weight.detach(), moments, first, stride))
    return slices


def dense_state(learner: Recommender) -> dict[str, Tensor]:
    """The dense model with its optimiser's moments, by name.

    A frozen or unused parameter has no moments, and a tied one has them once, under its first name.
    """
    state = {f"dense.{name}": tensor for name, tensor in learner.dense.state_dict().items()}
    for name, weight in learner.dense.named_parameters():
        moments = learner.dense_optimiser.state.get(weight, {})
        state |= {f"dense.{name}.{moment}": torch.as_tensor(value) for moment, value in moments.items()}
    return state


def write_checkpoint(
    folder: Folder,
    stage: int,
    learner: Recommender,
    touched: Sequence[NDArray[np.int64]],
    every: FullEvery = "auto",
) -> tuple[FileStamp, ...]:
    """Write the state of a learner after a stage, as an increment over the stage before where that will do.

    Where several processes learn it, all of them call this together, and each writes the rows that it holds.

    Args:
        folder: the run directory.
        stage: number of the stage, from 1.
        learner: has learned the stage's block.
        touched: of `touched_rows`.
        every: see `is_due`.

    Returns:
        The stamps of what was written, the manifest's first.
    """
    before = Manifest.read(folder, stage - 1) if stage > 1 else None
    full = is_due(every, before, learner.tables.rows, sum(map(len, touched)))
    peers = learner.peers
    if peers.rank == 0:
        _clear(folder, stage)
    peers.gather(None)  # nobody writes before it is cleared
    own = write_rows(folder, stage, table_slices(learner), None if full else touched)
    shards = [shard for written in peers.gather(own) for shard in written]
    stamps = None
    if peers.rank == 0:
        stamps = write_manifest(folder, stage, learner, shards, None if full else before)
    (first, *_) = peers.gather(stamps)
    assert first is not None
    return first


def _clear(folder: Folder, stage: int) -> None:
    """Remove what an attempt that was interrupted may have left of a stage."""
    path = layout.stage_folder("reference", stage)
    if folder.exists(path):
        folder.fs.rm(folder / path, recursive=True)


def write_rows(
    folder: Folder,
    stage: int,
    tables: Sequence[TableSlice],
    touched: Sequence[NDArray[np.int64]] | None,
) -> list[Shard]:
    """Write the rows that this process holds: those in `touched`, or all where it is None."""
    shards = []
    for number, pieces in enumerate(_files(tables, touched)):
        state: dict[str, Tensor] = {}
        for segment, tensors in pieces:
            state |= {f"tables.{segment.field}{kind}": tensor for kind, tensor in tensors.items()}
        path = layout.checkpoint_rows(stage, tables[0].first, number)
        stamp = folder.write(path, to_safetensors(state))
        shards.append(Shard(**stamp._asdict(), segments=tuple(segment for segment, _ in pieces)))
    return shards


def write_manifest(
    folder: Folder, stage: int, learner: Recommender, shards: Sequence[Shard], before: Manifest | None
) -> tuple[FileStamp, ...]:
    """Write the dense model and, last, the manifest; return the stamps of the whole stage, it first.

    Args:
        folder: the run directory.
        stage: number of the stage.
        learner: the state.
        shards: of all processes, of this stage.
        before: the manifest that this one is an increment over; None: it is full.
    """
    stamp = folder.write(layout.checkpoint_dense(stage), to_safetensors(dense_state(learner)))
    rows = sum(segment.rows for shard in shards for segment in shard.segments)
    states = [learner.table_optimiser.state.get(weight, {}) for weight in learner.tables.weights()]
    manifest = Manifest(
        dim=learner.tables.weights()[0].shape[1],
        table_rows=learner.tables.rows,
        steps=tuple(int(state["step"]) if "step" in state else None for state in states),
        dense=Shard(**stamp._asdict(), segments=()),
        shards=(*(before.shards if before else ()), *shards),
        increments=before.increments + 1 if before else 0,
        increment_rows=before.increment_rows + rows if before else 0,
    )
    written = folder.write(layout.checkpoint(stage), manifest.content())
    return (written, *(shard.stamp for shard in shards), stamp)


_Piece = tuple[Segment, dict[str, Tensor]]


def _files(
    tables: Sequence[TableSlice], touched: Sequence[NDArray[np.int64]] | None
) -> Iterator[list[_Piece]]:
    """The segments of each file; a file is full when it has SHARD_BYTES."""
    pieces: list[_Piece] = []
    room = most = max(1, SHARD_BYTES // (4 + sum(map(_row_bytes, tables)) // len(tables)))
    for field, table in enumerate(tables):
        ids = None if touched is None else table.owned(touched[field])
        rows, start = len(table.weight_RD) if ids is None else len(ids), 0
        while start < rows:
            stop = min(rows, start + room)
            pieces.append(_piece(field, table, ids, start, stop))
            room, start = room - (stop - start), stop
            if not room:
                yield pieces
                pieces, room = [], most
    if pieces:
        yield pieces


def _row_bytes(table: TableSlice) -> int:
    return table.weight_RD[:1].nbytes * (1 + len(table.moments))


def _piece(field: int, table: TableSlice, ids: NDArray[np.int64] | None, start: int, stop: int) -> _Piece:
    """Rows [start, stop) of `ids`, or of the whole slice, with their moments."""
    named = {"": table.weight_RD, **{f".{name}": moment for name, moment in table.moments.items()}}
    if ids is None:
        tensors = {kind: tensor[start:stop] for kind, tensor in named.items()}
        first = table.first + start * table.stride
    else:
        row_K = torch.from_numpy(ids[start:stop] // table.stride).to(table.weight_RD.device)
        tensors = {kind: tensor[row_K] for kind, tensor in named.items()}
        tensors[".ids"], first = torch.from_numpy(ids[start:stop].astype(np.int32)), None
    segment = Segment(
        field=field, rows=stop - start, first=first, stride=table.stride, moments=bool(table.moments)
    )
    return segment, tensors

"""The distiller's part of a stage: fuse the memory, give its directions, optimise it, write it.

Shape suffixes: N rows.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diet_ray import layout
from diet_ray.distillation.addressing import ProxyDirection, proxy_directions
from diet_ray.distillation.distiller import Progress
from diet_ray.distillation.memory import Memory, fusion_direction, to_arrow
from diet_ray.distillation.memory_update import (
    first_proxies,
    fused_memory,
    memory_schema,
    optimised_memory,
    realigned_memory,
)
from diet_ray.distillation.pool import Pool
from diet_ray.distillation.scored_rows import EmbeddedRows
from diet_ray.models.examples import Examples, Params, dense_params, loss_of
from diet_ray.runs.metrics import MemoryMetrics
from diet_ray.runs.state import RunState
from diet_ray.storage import FileStamp
from diet_ray.training.checkpoints.snapshot import Snapshot
from diet_ray.training.device import peak_bytes, reset_peak

PIECE = 65_536  # rows of an old memory that are weighed together; a multiple of influence.CHUNK


class DistilledMemory(NamedTuple):
    """A memory that is written but not committed."""

    stamp: FileStamp
    metrics: MemoryMetrics


class _Beginning(NamedTuple):
    """What a stage begins with."""

    reference: Snapshot
    previous: Snapshot | None
    stored: Memory | None  # of the stage before
    old: Memory | None  # the same realigned; None where nothing is kept


class StageMemory:
    """Makes the memory of one stage after another.

    Keeps what the next call, and the next stage, begins with. Every method takes all that it depends on, so
    that a process which has lost the rest makes it again: calls may be repeated.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state
        self._stage, self._newest = 0, 0
        self._beginning: _Beginning | None = None
        self._fused: Memory | None = None
        self._kept: tuple[int, Snapshot, Memory] | None = None  # stage, its checkpoint and its memory

    def old_pieces(self, stage: int) -> list[Examples]:
        """The old rows to be weighed (eq. 10), realigned, PIECE at a time, on the CPU."""
        old = self._at(stage).old
        return list(old.to(torch.device("cpu")).examples().chunks(PIECE)) if old else []

    def fusion_direction(self, stage: int, boundary: Sequence[EmbeddedRows]) -> Params:
        """The direction along which old rows are weighed, on the CPU; see memory.fusion_direction."""
        judge = self._at(stage).reference
        new = EmbeddedRows.joined(boundary).as_memory(stage).to(judge.device)
        along = fusion_direction(loss_of(judge.dense), dense_params(judge.dense), new)
        return {name: part.cpu() for name, part in along.items()}

    def directions(
        self, stage: int, rows: int, boundary: Sequence[EmbeddedRows], weights: Sequence[Tensor] = ()
    ) -> list[ProxyDirection]:
        """The direction of each proxy of the first addressings, under the fused memory (eq. 16)."""
        begun = self._at(stage)
        memory = self._fuse(stage, rows, boundary, weights)
        proxies = first_proxies(self.state.log, self.state.config, begun.previous, begun.reference.device)
        return proxy_directions(proxies, memory.examples())

    def distill(
        self,
        stage: int,
        rows: int,
        boundary: Sequence[EmbeddedRows],
        pool: Pool,
        weights: Sequence[Tensor] = (),
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> DistilledMemory:
        """Turn the memory before a stage into the memory after it, and write it.

        Args:
            stage: number of the stage, from 1, with its checkpoint written.
            rows: most rows of the memory.
            boundary: rows selected from the block, by part.
            pool: rows of the block from which targets are taken.
            weights: of the old rows (eq. 10), by piece, where they are known already.
            report: called after every outer iteration.
        """
        losses: list[float] = []
        reset_peak()

        def note(progress: Progress) -> None:
            losses.append(progress.outer_loss)
            report(progress)

        begun, config, log = self._at(stage), self.state.config, self.state.log
        memory = self._fuse(stage, rows, boundary, weights)
        real, weight_N = pool.targets(config.method.outer.target_labels)
        device = begun.reference.device
        uniform = len(pool.weights) == 1
        memory = optimised_memory(
            stage,
            log,
            config,
            memory,
            real.to(device),
            None if uniform else weight_N.to(device),
            begun.previous,
            note,
        )
        table = to_arrow(memory, memory_schema(log, config), reference=layout.checkpoint(stage))
        stamp = self.state.folder.write_parquet(layout.memory(stage), table)
        self._kept = (stage, begun.reference, memory)
        return DistilledMemory(stamp, MemoryMetrics.of(memory, begun.stored, tuple(losses), peak_bytes()))

    def _at(self, stage: int) -> _Beginning:
        if self._beginning is None or self._stage != stage:
            self._fused, self._beginning = None, None
            self._beginning, self._stage = self._begin(stage), stage
        return self._beginning

    def _begin(self, stage: int) -> _Beginning:
        state = self.state
        reference = state.checkpoint(stage)
        kept, self._kept = self._kept, None
        previous: Snapshot | None
        stored: Memory | None
        if kept and kept[0] == stage - 1:
            _, previous, stored = kept
        else:
            previous = state.checkpoint(stage - 1) if stage > 1 else None
            read = state.memory(stage - 1)
            stored = read.to(reference.device) if read else None
        old = realigned_memory(stored, stage, state.log, state.config, previous=previous, reference=reference)
        return _Beginning(reference, previous, stored, old)

    def _fuse(
        self, stage: int, rows: int, boundary: Sequence[EmbeddedRows], weights: Sequence[Tensor]
    ) -> Memory:
        begun = self._at(stage)
        if self._fused is None:
            device = begun.reference.device
            new = EmbeddedRows.joined(boundary).as_memory(stage).to(device)
            weight_N = torch.cat(list(weights)).to(device) if weights else None
            self._fused = fused_memory(new, begun.old, begun.reference, rows=rows, weight_N=weight_N)
        return self._fused

"""The distiller: turns the memory before a block into the memory after it."""

from collections.abc import Callable, Iterator
from typing import Any

from actors.reference import with_progress
from actors.worker import RunWorker, checkpoint_path, memory_path
from diet_ray.distillation.distiller import Progress
from diet_ray.distillation.memory import Memory, from_arrow, to_arrow
from diet_ray.distillation.selection import Collected
from diet_ray.distillation.stage import composition, memory_schema, next_memory
from diet_ray.evaluation.probe import probe_memory
from diet_ray.training.metrics import Scores
from diet_ray.training.peak_memory import forget_peak, peak_bytes


class Distiller(RunWorker):
    """Reads everything it needs from the run; keeps nothing between stages."""

    def distil(
        self, stage: int, rows: int, boundary: Collected, pool: Collected
    ) -> Iterator[tuple[str, Any]]:
        """Yield progress in outer iterations, then the memory's stamp, its composition and the losses."""

        def work(report: Callable[[int], None]) -> Any:
            losses: list[float] = []
            forget_peak()

            def note(progress: Progress) -> None:
                losses.append(progress.outer_loss)
                report(1)

            schema, old = memory_schema(self.log, self.config), self.memory(stage - 1)
            reference = self.checkpoint(stage)
            device = reference.device
            memory = next_memory(
                stage,
                self.log,
                self.config,
                rows=rows,
                boundary=boundary.as_memory(stage).to(device),
                old=old.to(device) if old else None,
                real=pool.targets(self.config.method.outer.target_labels).to(device),
                reference=reference,
                previous=self.checkpoint(stage - 1) if stage > 1 else None,
                report=note,
            )
            table = to_arrow(memory, schema, reference=checkpoint_path(stage))
            stamp = self.folder.write_parquet(memory_path(stage), table)
            return stamp, {**composition(memory, old), "outer_loss": losses, "peak_bytes": peak_bytes()}

        yield from with_progress(work)

    def probe(self, stage: int) -> Scores:
        """How well the memory before block `stage` prepares a small candidate for it."""
        memory = self.memory(stage - 1)
        assert memory is not None
        checkpoint = self.folder.read(checkpoint_path(stage - 1))
        shape = (self.config.dim, self.config.training)
        return probe_memory(memory.examples(), checkpoint, self.log, self.log.block(stage), *shape)

    def memory(self, stage: int) -> Memory | None:
        if stage == 0:
            return None
        return from_arrow(self.folder.read_parquet(memory_path(stage)), memory_schema(self.log, self.config))

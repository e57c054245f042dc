"""The distiller as an actor."""

from collections.abc import Iterator

from actors.progress import Event, with_progress
from actors.worker import RunWorker
from diet_ray.distillation.scored_rows import EmbeddedRows
from diet_ray.evaluation.probe import probe_memory
from diet_ray.runs.stage import distill_stage
from diet_ray.training.metrics import Scores


class Distiller(RunWorker):
    """Turns the memory before a block into the memory after it; keeps nothing between stages."""

    def distill(self, stage: int, rows: int, boundary: EmbeddedRows, pool: EmbeddedRows) -> Iterator[Event]:
        """Yield progress in outer iterations, then the DistilledMemory."""
        yield from with_progress(
            lambda report: distill_stage(self.state, stage, rows, boundary, pool, lambda _: report(1))
        )

    def probe(self, stage: int) -> Scores:
        """Scores of a small candidate, trained on the memory before `stage`, on its block."""
        memory = self.state.memory(stage - 1)
        assert memory is not None
        return probe_memory(
            memory.examples(),
            self.state.stored_checkpoint(stage - 1),
            self.state.log,
            self.state.log.block(stage),
            self.state.config.dim,
        )

"""The distiller as an actor."""

from collections.abc import Iterator

from actors.progress import Event, with_progress
from actors.worker import RunWorker
from diet_ray.distillation.scored_rows import EmbeddedRows
from diet_ray.evaluation.probe import newest_rows, probe_memory
from diet_ray.runs.stage import distill_stage
from diet_ray.training.metrics import Scores


class Distiller(RunWorker):
    """Turns the memory before a block into the memory after it; keeps nothing between stages."""

    def distill(self, stage: int, rows: int, boundary: EmbeddedRows, pool: EmbeddedRows) -> Iterator[Event]:
        """Yield progress in outer iterations, then the DistilledMemory."""
        yield from with_progress(
            lambda report: distill_stage(self.state, stage, rows, boundary, pool, lambda _: report(1))
        )

    def probe(self, stage: int) -> tuple[Scores, Scores]:
        """Scores of a small candidate on the block of `stage`.

        Trained on the memory before it, and on as many random rows of the block before it.
        """
        state, memory = self.state, self.state.memory(stage - 1)
        assert memory is not None
        checkpoint, block = state.checkpoint_bytes(stage - 1), state.log.block(stage)
        newest = newest_rows(state, stage - 1, memory.rows)
        dim, training = state.config.dim, state.config.training
        own, control = (
            probe_memory(rows, checkpoint, state.log, block, dim, training)
            for rows in (memory.examples(), newest)
        )
        return own, control

"""The distiller as an actor."""

from collections.abc import Iterator, Sequence
from typing import Any

import ray

from actors.progress import Event, with_progress
from actors.worker import RunWorker
from diet_ray.distillation.addressing import ProxyDirection
from diet_ray.distillation.pool import Pool
from diet_ray.evaluation.probe import newest_rows, probe_memory
from diet_ray.models.examples import Examples, Params
from diet_ray.runs.stage_memory import StageMemory
from diet_ray.training.metrics import Scores


class Distiller(RunWorker):
    """Turns the memory before a block into the memory after it, and holds it; its calls may be repeated.

    Rows come as references (EmbeddedRows by part, weights of old rows by piece): they do not pass the driver.
    """

    def __init__(self, data: str, run: str, config: dict[str, Any], threads: int) -> None:
        super().__init__(data, run, config, threads)
        self.memory = StageMemory(self.state)

    def old_pieces(self, stage: int) -> list[Examples]:
        return self.memory.old_pieces(stage)

    def fusion_direction(self, stage: int, boundary: Sequence[Any]) -> Params:
        return self.memory.fusion_direction(stage, ray.get(list(boundary)))

    def directions(
        self, stage: int, rows: int, boundary: Sequence[Any], weights: Sequence[Any]
    ) -> list[ProxyDirection]:
        return self.memory.directions(stage, rows, ray.get(list(boundary)), ray.get(list(weights)))

    def distill(
        self, stage: int, rows: int, boundary: Sequence[Any], pool: Pool, weights: Sequence[Any]
    ) -> Iterator[Event]:
        """Yield progress in outer iterations, then the DistilledMemory."""
        boundary, weights = ray.get(list(boundary)), ray.get(list(weights))
        pool = pool._replace(parts=ray.get(list(pool.parts)))
        yield from with_progress(
            lambda report: self.memory.distill(stage, rows, boundary, pool, weights, lambda _: report(1))
        )

    def probe(self, stage: int) -> tuple[Scores, Scores]:
        """Scores of a small candidate on the block of `stage`.

        Trained on the memory before it, and on as many random rows of the block before it.
        """
        state, memory = self.state, self.state.memory(stage - 1)
        assert memory is not None
        checkpoint, block = state.stored_checkpoint(stage - 1), state.log.block(stage)
        newest = newest_rows(state, stage - 1, memory.rows)
        own, control = (
            probe_memory(rows, checkpoint, state.log, block, state.config.dim)
            for rows in (memory.examples(), newest)
        )
        return own, control

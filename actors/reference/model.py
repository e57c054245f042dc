"""The reference model as an actor."""

from collections.abc import Iterator
from typing import Any

from actors.progress import Event, with_progress
from actors.worker import RunWorker
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.training.checkpoints.manifest import FullEvery
from diet_ray.training.metrics import Scores


class ReferenceModel(RunWorker):
    """Learns block after block and writes a checkpoint after each; its calls may be repeated."""

    def __init__(
        self,
        data: str,
        run: str,
        config: dict[str, Any],
        threads: int,
        full_every: FullEvery = "auto",
    ) -> None:
        super().__init__(data, run, config, threads)
        self.trainer = ReferenceTrainer(self.state, full_every)

    def progressive(self, stage: int) -> Scores:
        """Scores on the block of `stage` before it is learned."""
        return self.trainer.progressive(stage)

    def train(self, stage: int) -> Iterator[Event]:
        """Learn the block of `stage`; yields progress in rows, then the checkpoint's stamps and the loss."""
        yield from with_progress(lambda report: self.trainer.train(stage, report))

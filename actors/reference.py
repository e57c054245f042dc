"""The reference model: learns block after block and writes a checkpoint after each."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from actors.worker import RunWorker, checkpoint_path
from diet_ray.seeding import derived_seed
from diet_ray.training.checkpoint import restore, to_bytes
from diet_ray.training.learning import evaluate_block, learn_block
from diet_ray.training.metrics import Scores

REPORT_ROWS = 50_000


def with_progress(work: Callable[[Callable[[int], None]], Any]) -> Iterator[tuple[str, Any]]:
    """Run `work(report)` in a thread; yield ("progress", n) as it reports and at last ("done", result)."""
    said: queue.Queue[tuple[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            said.put(("done", work(lambda n: said.put(("progress", n)))))
        except BaseException as failure:
            said.put(("failed", failure))

    threading.Thread(target=run, daemon=True).start()
    pending = 0
    while True:
        kind, value = said.get()
        if kind == "failed":
            raise value
        if kind == "done":
            yield kind, value
            return
        pending += value
        if said.empty() or pending >= REPORT_ROWS:
            yield kind, pending
            pending = 0


class ReferenceModel(RunWorker):
    """Holds the learner between blocks; asked for any stage it starts from the checkpoint before it."""

    def __init__(self, data: str, run: str, config: dict[str, Any], threads: int) -> None:
        super().__init__(data, run, config, threads)
        self.held, self.stage = self.learner(), 0

    def progressive(self, stage: int) -> Scores:
        """How well the reference knows block `stage` before it learns it."""
        self._go_to(stage - 1)
        return evaluate_block(self.held, self.log, self.log.block(stage))

    def train(self, stage: int) -> Iterator[tuple[str, Any]]:
        """Learn block `stage`; yields progress in rows, then the checkpoint's stamp and the training loss."""
        self._go_to(stage - 1)
        block = self.log.block(stage)
        seed = derived_seed(self.config.seed, "reference")
        self.stage = -1  # half trained until the epoch is over

        def work(report: Callable[[int], None]) -> Any:
            loss = learn_block(self.held, self.log, block, self.config.training, seed, report)
            return self.folder.write(checkpoint_path(stage), to_bytes(self.held)), loss

        for kind, value in with_progress(work):
            if kind == "done":
                self.stage = stage
            yield kind, value

    def _go_to(self, stage: int) -> None:
        """Hold the checkpoint of a stage, read back where another is held."""
        if self.stage == stage:
            return
        self.held, self.stage = self.learner(), stage
        if stage:
            restore(self.held, self.folder.read(checkpoint_path(stage)))

"""The reference model through the blocks of a run: learn a block, write a checkpoint."""

from diet_ray.runs.state import RunState
from diet_ray.seeding import derived_seed
from diet_ray.storage import FileStamp
from diet_ray.training.checkpoints.manifest import FullEvery
from diet_ray.training.checkpoints.restoring import restore
from diet_ray.training.checkpoints.writing import touched_rows, write_checkpoint
from diet_ray.training.embedding import score_block
from diet_ray.training.learning import Report, learn_block
from diet_ray.training.metrics import Scores
from diet_ray.training.parallel.peers import ALONE, Peers

HALF_TRAINED = -1


class ReferenceTrainer:
    """Holds the reference between blocks; for any stage it starts from the checkpoint before it.

    Where several processes learn the reference, each has a trainer, and all of them make the same calls
    together; a checkpoint is restored by any number of them.
    """

    def __init__(self, state: RunState, full_every: FullEvery = "auto", peers: Peers = ALONE) -> None:
        """full_every: of how many checkpoints one is full (training.checkpoints.manifest.is_due)."""
        self.state, self.full_every, self.peers = state, full_every, peers
        self.reference, self.stage = state.new_reference(peers), 0

    def progressive(self, stage: int) -> Scores:
        """Scores of the reference on the block of `stage` before it learns it."""
        self._go_to(stage - 1)
        return score_block(self.reference, self.state.log, self.state.log.block(stage))

    def train(self, stage: int, report: Report = lambda rows: None) -> tuple[tuple[FileStamp, ...], float]:
        """Learn the block of `stage` and write the checkpoint.

        Returns:
            The stamps of the checkpoint's files and the mean training loss.
        """
        self._go_to(stage - 1)
        state, block = self.state, self.state.log.block(stage)
        rows_before = self.reference.tables.rows
        self.stage = HALF_TRAINED
        loss = learn_block(
            self.reference,
            state.log,
            block,
            state.config.training,
            derived_seed(state.config.seed, "reference"),
            report,
        )
        touched = touched_rows(state.log, block, rows_before)
        stamps = write_checkpoint(state.folder, stage, self.reference, touched, self.full_every)
        self.stage = stage
        return stamps, loss

    def _go_to(self, stage: int) -> None:
        """Load the state after a stage from its checkpoint, unless it is already there."""
        if self.stage == stage:
            return
        self.reference, self.stage = self.state.new_reference(self.peers), stage
        if stage:
            restore(self.reference, self.state.stored_checkpoint(stage))

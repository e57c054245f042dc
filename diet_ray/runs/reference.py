"""The reference model through the blocks of a run: learn a block, write a checkpoint."""

from diet_ray import layout
from diet_ray.runs.state import RunState
from diet_ray.seeding import derived_seed
from diet_ray.storage import FileStamp
from diet_ray.training.checkpoint import restore, to_bytes
from diet_ray.training.embedding import score_block
from diet_ray.training.learning import Report, learn_block
from diet_ray.training.metrics import Scores

HALF_TRAINED = -1


class ReferenceTrainer:
    """Holds the reference between blocks; for any stage it starts from the checkpoint before it."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.reference, self.stage = state.new_reference(), 0

    def progressive(self, stage: int) -> Scores:
        """Scores of the reference on the block of `stage` before it learns it."""
        self._go_to(stage - 1)
        return score_block(self.reference, self.state.log, self.state.log.block(stage))

    def train(self, stage: int, report: Report = lambda rows: None) -> tuple[FileStamp, float]:
        """Learn the block of `stage` and write the checkpoint.

        Returns:
            The stamp of the checkpoint and the mean training loss.
        """
        self._go_to(stage - 1)
        state = self.state
        self.stage = HALF_TRAINED
        loss = learn_block(
            self.reference,
            state.log,
            state.log.block(stage),
            state.config.training,
            derived_seed(state.config.seed, "reference"),
            report,
        )
        stamp = state.folder.write(layout.checkpoint(stage), to_bytes(self.reference))
        self.stage = stage
        return stamp, loss

    def _go_to(self, stage: int) -> None:
        """Load the state after a stage from its checkpoint, unless it is already there."""
        if self.stage == stage:
            return
        self.reference, self.stage = self.state.new_reference(), stage
        if stage:
            restore(self.reference, self.state.checkpoint_bytes(stage))

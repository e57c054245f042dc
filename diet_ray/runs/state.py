"""What the parts of a stage read from a run directory: the log, checkpoints and memories."""

from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.distillation.memory import Memory, from_arrow
from diet_ray.distillation.memory_update import memory_schema, new_reference
from diet_ray.log.dataset import EncodedLog
from diet_ray.log.stream.run_log import open_log
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.snapshot import Snapshot
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.device import default_device
from diet_ray.training.learning import new_recommender
from diet_ray.training.parallel.peers import ALONE, Peers
from diet_ray.training.parallel.recommender import ParallelRecommender
from diet_ray.training.recommender import Recommender


class RunState:
    """Read access to the committed state of a run.

    Args:
        log: the run's log, prepared or streamed.
        folder: the run directory.
        config: of the run.
    """

    def __init__(self, log: EncodedLog, folder: Folder, config: RunConfig) -> None:
        self.log, self.folder, self.config = log, folder, config

    @classmethod
    def open(cls, data: str, run: str, config: RunConfig) -> "RunState":
        """Open by URL, as a process of its own does; DataError where `data` holds no log."""
        return cls(open_log(data), Folder.at(run), config)

    def new_reference(self, peers: Peers = ALONE) -> Recommender:
        """The reference before it has learned anything; `peers` learn it together."""
        dense = new_reference(self.log, self.config, "reference")
        training = self.config.training
        if peers.size == 1:
            return new_recommender(dense, self.log, self.config.dim, training)
        return ParallelRecommender(
            dense,
            len(self.log.fields),
            self.config.dim,
            peers,
            learning_rate=training.learning_rate,
            clip_norm=training.clip_norm,
            device=default_device(),
        )

    def checkpoint(self, stage: int) -> Snapshot:
        """The reference as it was after `stage`, for scoring; it reads the table rows that it meets."""
        dense = new_reference(self.log, self.config, "reference")
        stored = self.stored_checkpoint(stage)
        return Snapshot.of(stored, dense, fields=len(self.log.fields), dim=self.config.dim)

    def stored_checkpoint(self, stage: int) -> StoredCheckpoint:
        return StoredCheckpoint(self.folder, stage)

    def memory(self, stage: int) -> Memory | None:
        """The memory after `stage`; None for stage 0."""
        return self.stored_rows(layout.memory(stage)) if stage else None

    def stored_rows(self, path: str) -> Memory:
        """Rows in the form of a memory; RunError where they have another schema."""
        return from_arrow(self.folder.read_parquet(path), memory_schema(self.log, self.config))

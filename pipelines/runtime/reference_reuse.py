"""Checkpoints of another run in place of training: for runs that differ in what they distil only."""

from actors.worker import checkpoint_path
from diet_ray.config import RunConfig
from diet_ray.errors import DataError, RunError
from diet_ray.runs.run import Run, differences
from diet_ray.storage import FileStamp

# What a reference model depends on.
KEYS = ("fingerprint", "seed", "dim", "reference", "training")


class LentReference:
    """The reference of a finished run; RunError where it would have been trained otherwise."""

    def __init__(self, url: str, config: RunConfig, fingerprint: str, stages: int) -> None:
        self.run = Run.read(url)
        wanted = {**config.model_dump(mode="json"), "fingerprint": fingerprint}
        found = {key: self.run.config.get(key) for key in KEYS}
        if told := differences(found, {key: wanted[key] for key in KEYS}):
            raise RunError(f"the reference of {url} cannot be used: {told}")
        if self.run.stage < stages:
            raise RunError(
                f"the reference of {url} cannot be used: it has {self.run.stage} of {stages} stages"
            )

    def copy(self, stage: int, to: Run) -> tuple[FileStamp, float]:
        """Write the checkpoint of a stage into another run; return its stamp and its training loss."""
        record = self.run.records[stage - 1]
        stamp = next(stamp for stamp in record.files if stamp.path == checkpoint_path(stage))
        try:
            content = stamp.verified(self.run.folder)
        except DataError as damaged:
            raise RunError(f"the reference of {self.run.folder.root} cannot be used: {damaged}") from damaged
        return to.folder.write(stamp.path, content), record.metrics["training_loss"]

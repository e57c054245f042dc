"""Checkpoints of another run in place of training, for runs that differ only in what they distill."""

from diet_ray.config import RunConfig
from diet_ray.errors import DataError, RunError
from diet_ray.runs.run import Run
from diet_ray.storage import FileStamp
from diet_ray.strict import differences

# Settings that a reference depends on.
REFERENCE_KEYS = ("fingerprint", "seed", "dim", "reference", "training")


class ReusedReference:
    """The reference of a finished run.

    Raises:
        RunError: where it was trained with other settings, or the run is not finished.
    """

    def __init__(self, url: str, config: RunConfig, fingerprint: str, stages: int) -> None:
        self.run = Run.read(url)
        requested = {**config.model_dump(mode="json"), "fingerprint": fingerprint}
        stored = {key: self.run.config.get(key) for key in REFERENCE_KEYS}
        if changed := differences(stored, {key: requested[key] for key in REFERENCE_KEYS}):
            raise RunError(f"the reference of {url} cannot be reused: {changed}")
        if self.run.stage < stages:
            raise RunError(
                f"the reference of {url} cannot be reused: it has {self.run.stage} of {stages} stages"
            )

    def copy(self, stage: int, to: Run) -> tuple[tuple[FileStamp, ...], float]:
        """Write the checkpoint of a stage into another run; return its stamps and its training loss."""
        record = self.run.records[stage - 1]
        stamps = record.checkpoint_stamps()
        for stamp in stamps:
            try:
                to.folder.write(stamp.path, stamp.verified(self.run.folder))
            except DataError as damaged:
                raise RunError(
                    f"the reference of {self.run.folder.root} cannot be reused: {damaged}"
                ) from damaged
        return stamps, record.metrics.training_loss

"""The numbers a stage reports in its commit record."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diet_ray.log.stream.intake_state import IntakeState
from diet_ray.strict import Strict

if TYPE_CHECKING:  # commands that only look at records do not wait for PyTorch
    from torch import Tensor

    from diet_ray.distillation.memory import Memory


class MemoryMetrics(Strict):
    """Composition and optimisation of a memory."""

    rows: int
    rows_before: int | None = None
    """Rows of the memory of the stage before; None for the first stage."""
    rows_by_stage: dict[int, int]
    """Rows by the stage whose block they were selected from."""
    rows_by_label_group: dict[int, int]
    outer_loss: tuple[float, ...] = ()
    """Outer loss of every iteration."""
    peak_bytes: int | None = None
    """Peak memory of the distiller's process or GPU."""

    @classmethod
    def of(
        cls, memory: "Memory", before: "Memory | None", outer_loss: tuple[float, ...], peak_bytes: int
    ) -> "MemoryMetrics":
        return cls(
            rows=memory.rows,
            rows_before=before.rows if before else None,
            rows_by_stage=_counts(memory.stage_N),
            rows_by_label_group=_counts(memory.group_N),
            outer_loss=outer_loss,
            peak_bytes=peak_bytes,
        )


class Moments(Strict):
    """Mean and standard deviation."""

    mean: float
    deviation: float


class MeanScores(Strict):
    """Means over the tasks."""

    auc: float
    logloss: float


class StageSeconds(Strict):
    """Wall-clock seconds of each part of a stage; training runs beside the stage before."""

    train: float
    score: float
    """Scoring the block and choosing its rows, influence on all of them included."""
    distill: float
    probe: float | None = None


class StreamMetrics(IntakeState):
    """What a stream adds to a stage: the state of its intake, and how long the block took."""

    closed_at: float
    """When the block closed, seconds since 1970 UTC."""
    seconds_to_read: float
    seconds_to_commit: float
    """From the close of the block to its commit."""
    rows_waiting: int
    """Rows that were read and belong to no committed block."""
    unread: int | None = None
    """Files or messages that wait to be read; None where nobody can tell."""

    @property
    def intake(self) -> IntakeState:
        """What the intake resumes from."""
        return IntakeState(**{key: getattr(self, key) for key in IntakeState.model_fields})


class StageMetrics(Strict):
    """Everything a stage reports."""

    memory: MemoryMetrics
    block_rows: int
    label_groups: dict[int, int]
    """Rows of the block by label group."""
    missing_label_groups: tuple[str, ...] = ()
    """Label groups of earlier blocks that this block lacks, as task names."""
    training_loss: float
    el2n: Moments
    seconds: StageSeconds
    progressive: MeanScores | None = None
    """The reference on the block before it learned it."""
    probe: MeanScores | None = None
    """A small candidate, trained on the memory before, on the block."""
    probe_newest: MeanScores | None = None
    """The same trained on random rows of the block before, as many as the memory has where it has them."""
    stream: StreamMetrics | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON holds it; what is None is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def parse(cls, stored: Mapping[str, Any], format_version: int) -> "StageMetrics":
        """Read stored metrics; pydantic's ValidationError where they are malformed."""
        return cls.model_validate(_upgraded(stored) if format_version == 1 else stored)


def _upgraded(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as version 0.1 wrote them, in today's form."""
    metrics = dict(stored)
    seconds = dict(metrics["seconds"])
    seconds["distill"] = seconds.pop("distil")
    metrics["seconds"] = seconds
    if "stream" in metrics:
        lag = metrics.pop("lag")
        timing = {key: metrics.pop(key) for key in ("closed_at", "seconds_to_read", "seconds_to_commit")}
        waiting = {"rows_waiting": lag["rows_read"], "unread": lag["not_read"]}
        metrics["stream"] = {**_upgraded_intake(metrics["stream"]), **timing, **waiting}
    return metrics


def _upgraded_intake(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The intake's state without the types of ids, which are text now, and its reasons without spaces."""
    counts = {
        reason.replace("files set aside", "files_quarantined"): n for reason, n in stored["counts"].items()
    }
    return {**{key: value for key, value in stored.items() if key != "types"}, "counts": counts}


def _counts(value_N: "Tensor") -> dict[int, int]:
    values, counts = value_N.unique(return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))

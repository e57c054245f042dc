"""A run and an evaluation that take seconds."""

from diet_ray.config import (
    FitConfig,
    InnerConfig,
    MethodConfig,
    OuterConfig,
    ReferenceConfig,
    RunConfig,
    TrainingConfig,
)
from diet_ray.runs.metrics import MemoryMetrics, Moments, StageMetrics, StageSeconds

TINY = RunConfig(
    ratio=0.05,
    dim=8,
    pool_rows=512,
    reference=ReferenceConfig(name="finalnet", ensemble=("finalnet",)),
    training=TrainingConfig(batch_size=128),
    method=MethodConfig(
        inner=InnerConfig(batch_size=16, horizon=4, window=2),
        outer=OuterConfig(iterations=3, real_rows=256),
    ),
)

FIT = FitConfig(epochs=2, batch_size=32, validation_rows=300)


def stage_metrics(rows: int = 1) -> StageMetrics:
    """Metrics of a stage whose memory has `rows` rows."""
    return StageMetrics(
        memory=MemoryMetrics(rows=rows, rows_by_stage={1: rows}, rows_by_label_group={0: rows}),
        block_rows=10 * rows,
        label_groups={0: 10 * rows},
        training_loss=0.5,
        el2n=Moments(mean=0.5, deviation=0.1),
        seconds=StageSeconds(train=1, score=1, distill=1),
    )

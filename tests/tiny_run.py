"""A run and an evaluation that take seconds."""

from pathlib import Path
from typing import Any

from diet_ray import layout
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
from diet_ray.runs.run import Run

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


def with_files(tmp_path: Path, config: dict[str, Any], stages: int) -> Run:
    """A run of which every stage has a file in each folder of stages."""
    run = Run.open(str(tmp_path), config)
    for stage in range(1, stages + 1):
        stamps = [
            run.folder.write(f"{layout.stage_folder(part, stage)}/file", f"{part} {stage}".encode())
            for part in layout.STAGE_FOLDERS
        ]
        run.commit(f"{stage:04d}", tuple(stamps), stage_metrics())
    return run

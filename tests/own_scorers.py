"""Scorers for tests, in a module that Ray's workers can import."""

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from actors.scorer import Scorer
from diet_ray.distillation.scored_rows import ScoredPart, Span
from diet_ray.training.checkpoints.snapshot import MetRows, Snapshot


class DoubleRows(MetRows):
    """Gives rows in float64."""

    def __init__(self, met: MetRows) -> None:
        self.met, self.rows = met, met.rows

    def __call__(self, id_NF: torch.Tensor) -> torch.Tensor:
        return self.met(id_NF).double()


class DoubleScorer(Scorer):
    """Computes in float64."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        torch.set_default_dtype(torch.float64)

    def checkpoint(self, stage: int) -> Snapshot:
        snapshot = self.state.checkpoint(stage)
        return snapshot._replace(dense=snapshot.dense.double(), tables=DoubleRows(snapshot.tables))


class NotedScorer(Scorer):
    """Takes its time to score, and notes each part in the folder `cache`."""

    def score(self, stage: int, span: Span, table: pa.Table | None = None) -> ScoredPart:
        folder, self.cache = self.cache, None
        scored = super().score(stage, span, table)
        self.cache = folder
        assert folder and table is not None
        Path(folder, f"{span.first}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.2)
        return scored

"""Scoring of a block over a pool of actors, a part of the block at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from actors.worker import RunWorker, scores_path
from diet_ray.distillation.el2n import El2nHistogram, RankedBins
from diet_ray.distillation.selection import Collected, PartScorer, Scored, rows_by_part
from diet_ray.log.dataset import Block
from diet_ray.storage import Folder


class Scorer(RunWorker):
    """One checkpoint; what it scored of the block is kept until the next stage, and scored anew if lost."""

    def __init__(
        self, data: str, run: str, config: dict[str, Any], threads: int, scores: str | None = None
    ) -> None:
        """scores: the run in whose directory runs of one reference share what they scored."""
        super().__init__(data, run, config, threads)
        self.stage, self.scores = 0, scores
        self.parts: PartScorer | None = None

    def histogram(self, stage: int, part: int) -> El2nHistogram:
        return self._at(stage).histogram(part)

    def in_bins(self, stage: int, part: int, wanted: Mapping[int, RankedBins], grouped: bool) -> Scored:
        return self._at(stage).in_bins(part, wanted, grouped)

    def collect(self, stage: int, part: int, row_N: NDArray[np.int64]) -> Collected:
        return self._at(stage).collect(part, row_N)

    def _at(self, stage: int) -> PartScorer:
        if self.parts is None or self.stage != stage:
            kept = Folder.at(scores_path(self.scores, stage)) if self.scores else None
            self.parts = PartScorer(self.checkpoint(stage), self.log, self.log.block(stage), kept)
            self.stage = stage
        return self.parts


class ScorerPool:
    """A BlockScorer over actors; part p always goes to actor p mod n, which holds its scores."""

    def __init__(self, scorers: list[Any], block: Block, stage: int, tasks: int) -> None:
        self.scorers, self.block, self.stage, self.tasks = scorers, block, stage, tasks

    def histogram(self) -> El2nHistogram:
        refs = [self._of(part).histogram.remote(self.stage, part) for part in self._parts()]
        merged = ray.get(refs[0])
        for ref in refs[1:]:
            merged = merged.merged(ray.get(ref))
        return merged

    def in_bins(self, wanted: Mapping[int, RankedBins], grouped: bool) -> Scored:
        refs = [self._of(part).in_bins.remote(self.stage, part, wanted, grouped) for part in self._parts()]
        return Scored.joined(ray.get(refs))

    def collect(self, row_N: NDArray[np.int64]) -> Collected:
        split = rows_by_part(self.block.parts, row_N)
        refs = [
            self._of(part).collect.remote(self.stage, part, rows)
            for part, rows in enumerate(split)
            if len(rows)
        ]
        return Collected.joined(ray.get(refs))

    def _parts(self) -> range:
        return range(len(self.block.parts))

    def _of(self, part: int) -> Any:
        return self.scorers[part % len(self.scorers)]

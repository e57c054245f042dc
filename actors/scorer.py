"""Scoring of a block over a pool of actors, a part of the block at a time."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from actors.worker import RunWorker
from diet_ray import layout
from diet_ray.distillation.el2n import El2nHistogram, RankedBins
from diet_ray.distillation.scored_rows import EmbeddedRows, PartScorer, ScoredRows, rows_by_part
from diet_ray.log.dataset import Block
from diet_ray.storage import Folder


class Scorer(RunWorker):
    """Holds one checkpoint, and scores of parts until the next stage; after a restart it scores again."""

    def __init__(
        self, data: str, run: str, config: dict[str, Any], threads: int, cache: str | None = None
    ) -> None:
        """cache: URL of the run in which runs of one reference share their scores."""
        super().__init__(data, run, config, threads)
        self.stage, self.cache = 0, cache
        self.parts: PartScorer | None = None

    def histogram(self, stage: int, part: int) -> El2nHistogram:
        return self._at(stage).histogram(part)

    def in_bins(self, stage: int, part: int, bins: Mapping[int, RankedBins], grouped: bool) -> ScoredRows:
        return self._at(stage).in_bins(part, bins, grouped)

    def embed(self, stage: int, part: int, row_N: NDArray[np.int64]) -> EmbeddedRows:
        return self._at(stage).embed(part, row_N)

    def _at(self, stage: int) -> PartScorer:
        if self.parts is None or self.stage != stage:
            state = self.state
            cache = Folder.at(f"{self.cache}/{layout.scores(stage)}") if self.cache else None
            self.parts = PartScorer(state.checkpoint(stage), state.log, state.log.block(stage), cache)
            self.stage = stage
        return self.parts


class ScorerPool:
    """A BlockScorer over actors; part p always goes to actor p mod n, which has its scores."""

    def __init__(self, scorers: list[Any], block: Block, stage: int) -> None:
        self.scorers, self.block, self.stage = scorers, block, stage

    def histogram(self) -> El2nHistogram:
        refs = [self._scorer(part).histogram.remote(self.stage, part) for part in self._parts()]
        return reduce(El2nHistogram.merged, (ray.get(ref) for ref in refs))

    def in_bins(self, bins: Mapping[int, RankedBins], grouped: bool) -> ScoredRows:
        refs = [self._scorer(part).in_bins.remote(self.stage, part, bins, grouped) for part in self._parts()]
        return ScoredRows.joined(ray.get(refs))

    def embed(self, row_N: NDArray[np.int64]) -> EmbeddedRows:
        refs = [
            self._scorer(part).embed.remote(self.stage, part, rows)
            for part, rows in enumerate(rows_by_part(self.block.parts, row_N))
            if len(rows)
        ]
        return EmbeddedRows.joined(ray.get(refs))

    def _parts(self) -> range:
        return range(len(self.block.parts))

    def _scorer(self, part: int) -> Any:
        return self.scorers[part % len(self.scorers)]

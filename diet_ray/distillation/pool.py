"""The pool of real rows that a stage's targets come from: hard rows of the whole block, and others.

Hard under a proxy are the rows of the block with the lowest alignment, `hard_ratio` of them, exactly. The
pool is drawn from the rows that are hard under any proxy and from the rest, each evenly; a row's weight is
the number of rows of the block that it stands for. By these weights the lowest rows of the block can be told
from the pool alone when the memory has moved.

Shape suffixes: N rows, P proxies, B bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from diet_ray.config import RunConfig, TargetLabels
from diet_ray.distillation.row_choice import Digits, Draw, Lowest, whole_block
from diet_ray.distillation.scored_rows import AlignedPart, BlockScorer, Columns, EmbeddedRows, Span
from diet_ray.models.examples import Examples
from diet_ray.seeding import derived_seed

REST, HARD = 0, 1  # cells


class Pool(NamedTuple):
    """Drawn rows: EmbeddedRows by part, or references to them, and the weight of a row of each cell."""

    parts: Columns
    weights: tuple[float, ...]

    def targets(self, labels: TargetLabels) -> tuple[Examples, torch.Tensor]:
        """The rows and their weights; the parts must be here."""
        rows = EmbeddedRows.joined(self.parts)
        return rows.targets(labels), torch.tensor(self.weights)[torch.tensor(rows.cell_N)]


def one_cell(span: Span) -> NDArray[np.int64]:
    """All rows of a part in cell 0."""
    return np.zeros(span.stop - span.first, np.int64)


@dataclass(frozen=True)
class CountDigits:
    """The work of counting the next digits of every search that goes on."""

    seed: int
    searches: tuple[Lowest, ...]

    def __call__(self, part: AlignedPart) -> list[NDArray[np.int64] | None]:
        return [
            None if search.done else Digits(self.seed, part.row_numbers(), value_N).counted(search)
            for search, value_N in zip(self.searches, part.alignment_NP.T, strict=True)
        ]


@dataclass(frozen=True)
class HardCells:
    """The cell of each row: HARD where it is among the lowest of any column."""

    seed: int
    searches: tuple[Lowest, ...]

    def __call__(self, part: AlignedPart) -> NDArray[np.int64]:
        hard_PN = [
            Digits(self.seed, part.row_numbers(), value_N).among(search)
            for search, value_N in zip(self.searches, part.alignment_NP.T, strict=True)
        ]
        return np.where(np.any(hard_PN, axis=0), HARD, REST).astype(np.int64)

    def counted(self, part: AlignedPart) -> NDArray[np.int64]:
        """Rows of the part in each cell; [2]."""
        return np.bincount(self(part), minlength=2)


def hard_cells(scorer: BlockScorer, aligned: Columns, *, proxies: int, ratio: float, seed: int) -> HardCells:
    """Find the lowest `ratio` of the block in each column, exactly; equal values go by the row's hash."""
    rank = max(1, round(ratio * scorer.block.rows))
    searches = (Lowest(rank),) * proxies
    while not all(search.done for search in searches):
        counts: Sequence[Any] = [None] * proxies
        for part in scorer.gather(aligned, CountDigits(seed, searches)):
            counts = [
                a if b is None else b if a is None else a + b for a, b in zip(counts, part, strict=True)
            ]
        searches = tuple(
            search if search.done else search.narrowed(count_B)
            for search, count_B in zip(searches, counts, strict=True)
        )
    return HardCells(seed, searches)


def draw_pool(scorer: BlockScorer, stage: int, config: RunConfig, directions: Callable[[], Any]) -> Pool:
    """Draw `pool_rows` of the block, `outer.hard_share` of them hard.

    A block that fits the pool is the pool. Without hard rows (a share of 0, or targets that are not selected)
    all rows have the same chance.

    Args:
        scorer: the block.
        stage: number of the stage; the draw depends on it and on the run's seed.
        config: of the run.
        directions: makes what BlockScorer.align takes; called only where the block is aligned.
    """
    rows, outer, wanted = scorer.block.rows, config.method.outer, config.pool_rows
    seed = derived_seed(config.seed, "pool", stage)
    if rows <= wanted or not outer.hard_share or not outer.target_selection or not outer.iterations:
        drawn = scorer.choose(whole_block(rows, wanted, seed), scorer.spans, one_cell)
        return Pool(scorer.embed(drawn), (1.0,))
    aligned = scorer.align(directions())
    proxies = len(config.reference.members())
    cells = hard_cells(scorer, aligned, proxies=proxies, ratio=outer.hard_ratio, seed=seed)
    count_C = np.sum(list(scorer.gather(aligned, cells.counted)), axis=0)
    hard = min(int(count_C[HARD]), round(outer.hard_share * wanted))
    rest = min(int(count_C[REST]), wanted - hard)
    quota_C = np.array([rest, min(int(count_C[HARD]), wanted - rest)])
    draw = Draw(seed, np.array([REST, HARD]), count_C, quota_C)
    parts = scorer.embed(scorer.choose(draw, aligned, cells))
    return Pool(parts, tuple((count_C / np.maximum(quota_C, 1)).tolist()))

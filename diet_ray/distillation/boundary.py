"""The boundary rows of a block: a band of EL2N within each label group (paper, eq. 7).

Shape suffixes: N rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from diet_ray.config import BoundaryConfig, QuotaRule
from diet_ray.distillation.el2n import BINS, El2nHistogram, el2n_bin
from diet_ray.distillation.row_choice import Draw
from diet_ray.distillation.scored_rows import BlockScorer, Columns, ScoredPart
from diet_ray.errors import ConfigError

WEIGHTS = {"equal": 0.0, "sqrt": 0.5, "proportional": 1.0}


def allocate_quotas(counts: Mapping[int, int], budget: int, rule: QuotaRule) -> dict[int, int]:
    """Split `budget` rows over the label groups, each at least one row and at most what it holds.

    A group's share is its count to the power 0, 1/2 or 1. What a small group cannot use goes to the others.
    Raises ConfigError where the budget is below one row per group.
    """
    if budget < len(counts):
        raise ConfigError(
            f"ratio too small: {budget} rows for {len(counts)} label groups, one row per group is the least; "
            "raise ratio or use larger blocks"
        )
    quotas = dict.fromkeys(counts, 1)
    left = min(budget, sum(counts.values())) - len(counts)
    while left:
        open_groups = [g for g in counts if quotas[g] < counts[g]]
        weight = {g: counts[g] ** WEIGHTS[rule] for g in open_groups}
        total = sum(weight.values())
        given = {g: min(int(left * weight[g] / total), counts[g] - quotas[g]) for g in open_groups}
        if not any(given.values()):  # fewer rows left than groups: the heaviest first
            heaviest = sorted(open_groups, key=lambda g: (-weight[g], g))[:left]
            given = dict.fromkeys(heaviest, 1)
        for group, rows in given.items():
            quotas[group] += rows
        left -= sum(given.values())
    return quotas


def band_ranks(count: int, quota: int, quantile: float, span: float) -> NDArray[np.int64]:
    """Ranks (ascending EL2N, from 0) of `quota` rows, evenly spaced in a band around `quantile`.

    The band holds the share `span` of the group's `count` rows, at least `quota` rows, and is shifted where
    it overhangs. Span 0 takes the `quota` rows nearest to the quantile (eq. 7); a wide band covers the
    difficulties it spans, which low ratios need (coverage-centric selection, arXiv 2210.15809).
    """
    rows = max(quota, round(span * count))
    start = round(quantile * (count - 1) - (rows - 1) / 2)
    start = min(max(start, 0), count - rows)
    return start + (2 * np.arange(quota) + 1) * rows // (2 * quota)


@dataclass(frozen=True)
class BinCells:
    """The cell of each row: its label group and its bin of EL2N; its bin alone where it is ungrouped."""

    tasks: int
    grouped: bool = True

    def __call__(self, part: ScoredPart) -> NDArray[np.int64]:
        bin_N = el2n_bin(part.el2n_N, self.tasks)
        return part.group_N * BINS + bin_N if self.grouped else bin_N


@dataclass(frozen=True)
class CountEl2n:
    """The work of counting a part's scores."""

    tasks: int

    def __call__(self, part: ScoredPart) -> El2nHistogram:
        return El2nHistogram.of(part.el2n_N, part.group_N, self.tasks)


def el2n_histogram(scorer: BlockScorer) -> El2nHistogram:
    """EL2N of all rows of the block."""
    return reduce(El2nHistogram.merged, scorer.gather(scorer.scores(), CountEl2n(scorer.tasks)))


def boundary_rows(
    scorer: BlockScorer, histogram: El2nHistogram, budget: int, config: BoundaryConfig, seed: int
) -> Columns:
    """Choose `budget` rows in the EL2N band of their label group (eq. 7); Rows by part.

    Each bin has as many rows as ranks of the band lie in it; within a bin the smallest hashes win.
    """
    quotas = allocate_quotas(histogram.group_counts(), budget, config.quota)
    draw = band_draw(histogram, quotas, quantile=config.quantile, span=config.span, seed=seed)
    return scorer.choose(draw, scorer.scores(), BinCells(scorer.tasks))


def band_draw(
    histogram: El2nHistogram, quotas: Mapping[int, int], *, quantile: float, span: float, seed: int
) -> Draw:
    """The draw of rows in the bands of `quotas`; a cell is group x BINS + bin."""
    counts, cells = histogram.group_counts(), []
    for group in sorted(quotas):
        rank_N = band_ranks(counts[group], quotas[group], quantile, span)
        quota_B = histogram.quotas(group, rank_N)
        bin_C = np.flatnonzero(quota_B)
        cells.append((group * BINS + bin_C, histogram.count_B[group][bin_C], quota_B[bin_C]))
    cell_C, count_C, quota_C = (np.concatenate(arrays) for arrays in zip(*cells, strict=True))
    return Draw(seed, cell_C, count_C, quota_C)

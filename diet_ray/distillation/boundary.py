"""Which rows of a block enter the boundary memory: a band of EL2N within each label group (paper, eq. 7).

Shape suffixes: N rows.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from diet_ray.config import QuotaRule
from diet_ray.distillation.el2n import El2nHistogram, RankedBins, el2n_bin
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


def rows_in_bins(
    el2n_N: NDArray[np.float32], group_N: NDArray[np.int64], tasks: int, wanted: Mapping[int, RankedBins]
) -> NDArray[np.int64]:
    """What one scorer returns of its rows: those that may lie in a band, ascending row numbers."""
    bin_N = el2n_bin(el2n_N, tasks)
    keep_N = np.zeros(len(bin_N), dtype=bool)
    for group, bins in wanted.items():
        keep_N |= (group_N == group) & (bin_N >= bins.first) & (bin_N <= bins.last)
    return np.flatnonzero(keep_N)


def bands(
    histogram: El2nHistogram, quotas: Mapping[int, int], quantile: float, span: float
) -> dict[int, NDArray[np.int64]]:
    """The ranks to keep in each label group of the block that `histogram` counts, ascending."""
    counts = histogram.group_counts()
    return {g: band_ranks(counts[g], quota, quantile, span) for g, quota in quotas.items()}


def exact_band(
    row_N: NDArray[np.int64], el2n_N: NDArray[np.float32], ranks: NDArray[np.int64], below: int
) -> NDArray[np.int64]:
    """Cut one group's candidates to the exact ranks; ties go by row number. Returns ascending row numbers.

    `below` is the number of the group's rows that were left out under the candidates.
    """
    by_rank = np.lexsort((row_N, el2n_N))
    return np.sort(row_N[by_rank[ranks - below]])

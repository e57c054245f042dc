"""The boundary rows of a block: a band of EL2N within each label group (paper, eq. 7).

Shape suffixes: N rows.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from diet_ray.config import BoundaryConfig, QuotaRule
from diet_ray.distillation.el2n import El2nHistogram
from diet_ray.distillation.scored_rows import BlockScorer
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


def bands(
    histogram: El2nHistogram, quotas: Mapping[int, int], quantile: float, span: float
) -> dict[int, NDArray[np.int64]]:
    """The ranks to keep in each label group of the block that `histogram` counts, ascending."""
    counts = histogram.group_counts()
    return {g: band_ranks(counts[g], quota, quantile, span) for g, quota in quotas.items()}


def exact_band(
    row_N: NDArray[np.int64], el2n_N: NDArray[np.float32], ranks: NDArray[np.int64], below: int
) -> NDArray[np.int64]:
    """Cut one group's rows to the exact ranks; ties go by row number. Returns ascending row numbers.

    below: number of the group's rows with a lower score that are not among `row_N`.
    """
    by_rank = np.lexsort((row_N, el2n_N))
    return np.sort(row_N[by_rank[ranks - below]])


def boundary_rows(scorer: BlockScorer, budget: int, config: BoundaryConfig) -> NDArray[np.int64]:
    """Numbers of `budget` rows in the EL2N band of their label group, ascending (eq. 7)."""
    histogram = scorer.histogram()
    quotas = allocate_quotas(histogram.group_counts(), budget, config.quota)
    return band_rows(scorer, histogram, quotas, quantile=config.quantile, span=config.span, grouped=True)


def band_rows(
    scorer: BlockScorer,
    histogram: El2nHistogram,
    quotas: Mapping[int, int],
    *,
    quantile: float,
    span: float,
    grouped: bool,
) -> NDArray[np.int64]:
    """Numbers of the rows in the bands of `quotas`, ascending.

    grouped: whether `histogram` counts label groups; otherwise the whole block is group 0.
    """
    ranks = bands(histogram, quotas, quantile, span)
    bins = {group: histogram.bins(group, rank_N) for group, rank_N in ranks.items()}
    scored = scorer.in_bins(bins, grouped)
    selected = []
    for group, rank_N in ranks.items():
        in_group = scored.group_N == group
        row_N, el2n_N = scored.row_N[in_group], scored.el2n_N[in_group]
        selected.append(exact_band(row_N, el2n_N, rank_N, bins[group].below))
    return np.sort(np.concatenate(selected))

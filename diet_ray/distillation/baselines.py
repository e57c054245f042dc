"""Rows that the baselines select from a block: random, k-means and EL2N without label groups.

Shape suffixes: N rows, X flattened embedding.
"""

import numpy as np
from numpy.typing import NDArray

from diet_ray.distillation.boundary import allocate_quotas, band_rows
from diet_ray.distillation.el2n import El2nHistogram
from diet_ray.distillation.scored_rows import BlockScorer

CLUSTERS = 64
SAMPLED_PER_SELECTED = 4  # rows that k-means clusters, per row that it selects


def random_rows(scorer: BlockScorer, budget: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of rows drawn uniformly without replacement, ascending."""
    return np.sort(draw.choice(scorer.block.rows, min(budget, scorer.block.rows), replace=False))


def el2n_rows(scorer: BlockScorer, budget: int, quantile: float) -> NDArray[np.int64]:
    """Numbers of the rows whose EL2N is nearest to a quantile of the whole block, ascending."""
    grouped = scorer.histogram()
    whole = El2nHistogram(grouped.count_GB.sum(0, keepdims=True), grouped.tasks)
    quotas = {0: min(budget, scorer.block.rows)}
    return band_rows(scorer, whole, quotas, quantile=quantile, span=0, grouped=False)


def kmeans_rows(scorer: BlockScorer, budget: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of the rows closest to the centroids, as many per cluster as its size allots, ascending.

    One cluster per selected row is infeasible at thousands of rows; a few clusters with proportional quotas
    over a uniform sample of the block stand in for it.
    """
    # Takes seconds to import, in every actor of a run, and only this baseline needs it.
    from sklearn.cluster import MiniBatchKMeans

    sample_N = random_rows(scorer, SAMPLED_PER_SELECTED * budget, draw)
    flat_NX = scorer.embed(sample_N).emb_NFD.reshape(len(sample_N), -1)
    clusters = min(CLUSTERS, budget, len(sample_N))
    fitted = MiniBatchKMeans(clusters, n_init=1, random_state=int(draw.integers(2**31))).fit(flat_NX)
    distance_N = np.linalg.norm(flat_NX - fitted.cluster_centers_[fitted.labels_], axis=1)
    numbers, counts = np.unique(fitted.labels_, return_counts=True)
    sizes = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    selected = [
        np.flatnonzero(fitted.labels_ == cluster)[np.argsort(distance_N[fitted.labels_ == cluster])[:quota]]
        for cluster, quota in allocate_quotas(sizes, budget, "proportional").items()
    ]
    return np.sort(sample_N[np.concatenate(selected)])

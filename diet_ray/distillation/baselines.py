"""Rows that the baselines select from a block: random, k-means and EL2N without label groups.

All choose as the method does: by quotas per cell and the hash of a row's number; Rows by part.

Shape suffixes: N rows, X flattened embedding.
"""

import numpy as np

from diet_ray.distillation.boundary import BinCells, allocate_quotas, band_draw, el2n_histogram
from diet_ray.distillation.pool import one_cell
from diet_ray.distillation.row_choice import Rows, whole_block
from diet_ray.distillation.scored_rows import BlockScorer, Columns, EmbeddedRows, LocalScorer

CLUSTERS = 64
SAMPLED_PER_SELECTED = 4  # rows that k-means clusters, per row that it selects


def random_rows(scorer: BlockScorer, budget: int, seed: int) -> Columns:
    """Rows drawn uniformly without replacement."""
    return scorer.choose(whole_block(scorer.block.rows, budget, seed), scorer.spans, one_cell)


def el2n_rows(scorer: BlockScorer, budget: int, quantile: float) -> Columns:
    """The rows whose EL2N is nearest to a quantile of the whole block."""
    whole = el2n_histogram(scorer).ungrouped()
    quotas = {0: min(budget, scorer.block.rows)}
    draw = band_draw(whole, quotas, quantile=quantile, span=0, seed=0)
    return scorer.choose(draw, scorer.scores(), BinCells(scorer.tasks, grouped=False))


def kmeans_rows(scorer: LocalScorer, budget: int, seed: int) -> Columns:
    """The rows closest to the centroids, as many per cluster as its size allots.

    One cluster per selected row is infeasible at thousands of rows; a few clusters with proportional quotas
    over a uniform sample of the block stand in for it. The sample is clustered in this process.
    """
    # Takes seconds to import, in every actor of a run, and only this baseline needs it.
    from sklearn.cluster import MiniBatchKMeans

    sample = random_rows(scorer, SAMPLED_PER_SELECTED * budget, seed)
    sampled = Rows.joined(sample)
    flat_NX = EmbeddedRows.joined(scorer.embed(sample)).emb_NFD.reshape(len(sampled.row_N), -1)
    clusters = min(CLUSTERS, budget, len(flat_NX))
    fitted = MiniBatchKMeans(clusters, n_init=1, random_state=seed % 2**31).fit(flat_NX)
    distance_N = np.linalg.norm(flat_NX - fitted.cluster_centers_[fitted.labels_], axis=1)
    numbers, counts = np.unique(fitted.labels_, return_counts=True)
    sizes = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    selected = [
        np.flatnonzero(fitted.labels_ == cluster)[np.argsort(distance_N[fitted.labels_ == cluster])[:quota]]
        for cluster, quota in allocate_quotas(sizes, budget, "proportional").items()
    ]
    chosen = sampled.take(np.sort(np.concatenate(selected)))
    return chosen.split([span.first for span in scorer.spans])

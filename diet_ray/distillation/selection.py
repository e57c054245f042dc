"""Which rows of a block stand for it: the boundary rows of the method, and the baselines'.

Every choice goes through a BlockScorer, so it is the same over one process and over a cluster.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_ray.config import BoundaryConfig, TargetLabels
from diet_ray.distillation.boundary import allocate_quotas, bands, exact_band, rows_in_bins
from diet_ray.distillation.el2n import El2nHistogram, RankedBins, el2n, label_group
from diet_ray.distillation.memory import Memory
from diet_ray.log.batches import joined
from diet_ray.log.dataset import Block, EncodedLog, Part
from diet_ray.models.examples import Examples, predict
from diet_ray.storage import Folder
from diet_ray.training.learning import embedded
from diet_ray.training.recommender import Recommender

CLUSTERS = 64
CLUSTERED_ROWS_PER_BUDGET = 4  # k-means looks at a uniform sample of this many rows per row it keeps


class Scored(NamedTuple):
    """Rows by number within the block, ascending."""

    row_N: NDArray[np.int64]
    el2n_N: NDArray[np.float32]
    group_N: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: list["Scored"]) -> "Scored":
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    @classmethod
    def of(cls, table: pa.Table) -> "Scored":
        """Inverse of `table`."""
        return cls(*(table[name].to_numpy() for name in ("row", "el2n", "label_group")))

    def table(self) -> pa.Table:
        return pa.table({"row": self.row_N, "el2n": self.el2n_N, "label_group": self.group_N})


class Collected(NamedTuple):
    """Rows as the checkpoint sees them."""

    emb_NFD: NDArray[np.float32]
    logit_NT: NDArray[np.float32]
    label_NT: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: list["Collected"]) -> "Collected":
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def hardness(self) -> NDArray[np.float32]:
        """EL2N of each row; [N] (eq. 6)."""
        return el2n(torch.tensor(self.logit_NT), torch.tensor(self.label_NT)).numpy()

    def targets(self, labels: TargetLabels) -> Examples:
        """The rows as targets of the outer loss: labelled by the checkpoint, or as the log has them."""
        real_NT, logit_NT = torch.tensor(self.label_NT), torch.tensor(self.logit_NT)
        return Examples(torch.tensor(self.emb_NFD), logit_NT.sigmoid() if labels == "teacher" else real_NT)

    def as_memory(self, stage: int) -> Memory:
        """The rows as memory rows of `stage` with the teacher's logits (eqs. 8-9)."""
        rows = len(self.emb_NFD)
        return Memory(
            torch.tensor(self.emb_NFD),
            torch.tensor(self.logit_NT),
            torch.full((rows,), stage, dtype=torch.int32),
            label_group(torch.tensor(self.label_NT)).int(),
            torch.full((rows,), float("nan")),
        )


class PartScorer:
    """One checkpoint and the scores of the parts of a block it was asked about."""

    def __init__(
        self, learner: Recommender, log: EncodedLog, block: Block, kept: Folder | None = None
    ) -> None:
        """kept: where scores of this checkpoint and block are found, and left for the next who asks."""
        self.learner, self.log, self.block, self.kept = learner, log, block, kept
        self._scored: dict[int, Scored] = {}

    def histogram(self, part: int) -> El2nHistogram:
        scored = self._score(part)
        return El2nHistogram.of(scored.el2n_N, scored.group_N, len(self.log.tasks))

    def in_bins(self, part: int, wanted: Mapping[int, RankedBins], grouped: bool) -> Scored:
        """The part's rows whose EL2N lies in the bins of their group; ungrouped, all rows are group 0."""
        scored = self._score(part)
        group_N = scored.group_N if grouped else np.zeros_like(scored.group_N)
        rows = rows_in_bins(scored.el2n_N, group_N, len(self.log.tasks), wanted)
        return Scored(scored.row_N[rows], scored.el2n_N[rows], group_N[rows])

    @torch.no_grad()
    def collect(self, part: int, row_N: NDArray[np.int64]) -> Collected:
        """Rows of the part by number, ascending, with embeddings, teacher logits and labels."""
        place = self.block.parts[part]
        chunks = self.log.chunks(self.block, place.first, place.first + place.rows)
        examples = embedded(self.learner, joined(list(chunks)).take(row_N - place.first))
        logits = predict(self.learner.dense, examples.emb_NFD) if len(row_N) else examples.label_NT
        return Collected(*(t.cpu().numpy() for t in (examples.emb_NFD, logits, examples.label_NT)))

    def _score(self, part: int) -> Scored:
        if part not in self._scored:
            path = f"part-{part}.parquet"
            if self.kept and self.kept.exists(path):
                self._scored[part] = Scored.of(self.kept.read_parquet(path))
            else:
                self._scored[part] = self._score_anew(part)
                if self.kept:
                    self.kept.write_parquet(path, self._scored[part].table())
        return self._scored[part]

    def _score_anew(self, part: int) -> Scored:
        place = self.block.parts[part]
        found = [
            self._score_rows(embedded(self.learner, rows))
            for rows in self.log.chunks(self.block, place.first, place.first + place.rows)
        ]
        el2n_N, group_N = (torch.cat(t).cpu().numpy() for t in zip(*found, strict=True))
        return Scored(np.arange(place.first, place.first + place.rows), el2n_N, group_N)

    def _score_rows(self, rows: Examples) -> tuple[Tensor, Tensor]:
        score_N = el2n(predict(self.learner.dense, rows.emb_NFD), rows.label_NT)
        return score_N, label_group(rows.label_NT)


class BlockScorer(Protocol):
    """A whole block under one checkpoint, wherever its parts are scored."""

    @property
    def block(self) -> Block: ...

    def histogram(self) -> El2nHistogram: ...

    def in_bins(self, wanted: Mapping[int, RankedBins], grouped: bool) -> Scored: ...

    def collect(self, row_N: NDArray[np.int64]) -> Collected: ...


def rows_by_part(parts: tuple[Part, ...], row_N: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut ascending row numbers of a block into those of each part."""
    return np.split(row_N, np.searchsorted(row_N, [part.first for part in parts[1:]]))


class LocalScorer:
    """A BlockScorer in this process."""

    def __init__(self, parts: PartScorer) -> None:
        self.parts, self.block = parts, parts.block

    def histogram(self) -> El2nHistogram:
        counts = [self.parts.histogram(p).count_GB for p in range(len(self.block.parts))]
        return El2nHistogram(np.sum(counts, axis=0), len(self.parts.log.tasks))

    def in_bins(self, wanted: Mapping[int, RankedBins], grouped: bool) -> Scored:
        return Scored.joined([self.parts.in_bins(p, wanted, grouped) for p in range(len(self.block.parts))])

    def collect(self, row_N: NDArray[np.int64]) -> Collected:
        split = rows_by_part(self.block.parts, row_N)
        return Collected.joined([self.parts.collect(p, rows) for p, rows in enumerate(split) if len(rows)])


def boundary_rows(scorer: BlockScorer, budget: int, config: BoundaryConfig) -> NDArray[np.int64]:
    """Rows in the EL2N band of their label group, ascending (eq. 7)."""
    histogram = scorer.histogram()
    quotas = allocate_quotas(histogram.group_counts(), budget, config.quota)
    return _band_rows(scorer, histogram, quotas, config.quantile, config.span, grouped=True)


def el2n_rows(scorer: BlockScorer, budget: int, quantile: float) -> NDArray[np.int64]:
    """Baseline EL2N: one band around the quantile of the whole block, ascending."""
    grouped = scorer.histogram()
    whole = El2nHistogram(grouped.count_GB.sum(0, keepdims=True), grouped.tasks)
    quotas = {0: min(budget, scorer.block.rows)}
    return _band_rows(scorer, whole, quotas, quantile, span=0, grouped=False)


def random_rows(scorer: BlockScorer, budget: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Baseline random: uniform without replacement, ascending."""
    return np.sort(draw.choice(scorer.block.rows, min(budget, scorer.block.rows), replace=False))


def kmeans_rows(scorer: BlockScorer, budget: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Baseline k-means: the rows closest to the centroids, as many per cluster as its size allots; ascending.

    One cluster per kept row is infeasible at thousands of rows; a few clusters with proportional quotas
    over a uniform sample of the block stand for it.
    """
    # Seconds to import, in every actor of a run, and needed by this baseline alone.
    from sklearn.cluster import MiniBatchKMeans

    sample_N = random_rows(scorer, CLUSTERED_ROWS_PER_BUDGET * budget, draw)
    flat_NX = scorer.collect(sample_N).emb_NFD.reshape(len(sample_N), -1)
    clusters = min(CLUSTERS, budget, len(sample_N))
    fitted = MiniBatchKMeans(clusters, n_init=1, random_state=int(draw.integers(2**31))).fit(flat_NX)
    distance_N = np.linalg.norm(flat_NX - fitted.cluster_centers_[fitted.labels_], axis=1)
    found, count = np.unique(fitted.labels_, return_counts=True)
    sizes = dict(zip(found.tolist(), count.tolist(), strict=True))
    kept = [
        np.flatnonzero(fitted.labels_ == cluster)[np.argsort(distance_N[fitted.labels_ == cluster])[:quota]]
        for cluster, quota in allocate_quotas(sizes, budget, "proportional").items()
    ]
    return np.sort(sample_N[np.concatenate(kept)])


def _band_rows(
    scorer: BlockScorer,
    histogram: El2nHistogram,
    quotas: Mapping[int, int],
    quantile: float,
    span: float,
    *,
    grouped: bool,
) -> NDArray[np.int64]:
    ranks = bands(histogram, quotas, quantile, span)
    wanted = {group: histogram.bins(group, rank_N) for group, rank_N in ranks.items()}
    near = scorer.in_bins(wanted, grouped)
    kept = []
    for group, rank_N in ranks.items():
        of_group = near.group_N == group
        kept.append(exact_band(near.row_N[of_group], near.el2n_N[of_group], rank_N, wanted[group].below))
    return np.sort(np.concatenate(kept))

"""A block's rows as a checkpoint scores and embeds them, part by part.

Every selection works on a BlockScorer, so it is the same in one process and over a cluster.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_ray.config import TargetLabels
from diet_ray.distillation.el2n import El2nHistogram, RankedBins, el2n, label_group, rows_in_bins
from diet_ray.distillation.memory import Memory
from diet_ray.log.batches import joined
from diet_ray.log.dataset import Block, EncodedLog, Part
from diet_ray.models.examples import Examples, predict
from diet_ray.storage import Folder
from diet_ray.training.embedding import Embedder, embed_rows


class ScoredRows(NamedTuple):
    """Row numbers within the block, ascending, with their score and label group."""

    row_N: NDArray[np.int64]
    el2n_N: NDArray[np.float32]
    group_N: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: list["ScoredRows"]) -> "ScoredRows":
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    @classmethod
    def of(cls, table: pa.Table) -> "ScoredRows":
        """Inverse of `table`."""
        return cls(*(table[name].to_numpy() for name in ("row", "el2n", "label_group")))

    def table(self) -> pa.Table:
        return pa.table({"row": self.row_N, "el2n": self.el2n_N, "label_group": self.group_N})


class EmbeddedRows(NamedTuple):
    """Rows with the checkpoint's embeddings and logits and the log's labels."""

    emb_NFD: NDArray[np.float32]
    logit_NT: NDArray[np.float32]
    label_NT: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: list["EmbeddedRows"]) -> "EmbeddedRows":
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def el2n(self) -> NDArray[np.float32]:
        """EL2N of each row; [N] (eq. 6)."""
        return el2n(torch.tensor(self.logit_NT), torch.tensor(self.label_NT)).numpy()

    def targets(self, labels: TargetLabels) -> Examples:
        """The rows as targets of the outer loss, with the checkpoint's probabilities or the log's labels."""
        label_NT = (
            torch.tensor(self.logit_NT).sigmoid() if labels == "teacher" else torch.tensor(self.label_NT)
        )
        return Examples(torch.tensor(self.emb_NFD), label_NT)

    def as_memory(self, stage: int) -> Memory:
        """The rows as memory rows of `stage` with the teacher's logits (eqs. 8-9)."""
        rows = len(self.emb_NFD)
        return Memory(
            emb_NFD=torch.tensor(self.emb_NFD),
            logit_NT=torch.tensor(self.logit_NT),
            stage_N=torch.full((rows,), stage, dtype=torch.int32),
            group_N=label_group(torch.tensor(self.label_NT)).int(),
            influence_N=torch.full((rows,), float("nan")),
        )


class BlockScorer(Protocol):
    """A whole block under one checkpoint, wherever its parts are scored."""

    @property
    def block(self) -> Block: ...

    def histogram(self) -> El2nHistogram:
        """EL2N of all rows, counted by label group and bin."""
        ...

    def in_bins(self, bins: Mapping[int, RankedBins], grouped: bool) -> ScoredRows:
        """Rows whose EL2N lies in the bins of their label group; ungrouped, all rows are group 0."""
        ...

    def embed(self, row_N: NDArray[np.int64]) -> EmbeddedRows:
        """Rows by number within the block, ascending."""
        ...


class PartScorer:
    """Scores parts of a block under one checkpoint and keeps the scores.

    Args:
        recommender: the checkpoint.
        log: the log of the block.
        block: whose parts are scored.
        cache: folder in which scores of this checkpoint and block are kept for other processes.
    """

    def __init__(
        self, recommender: Embedder, log: EncodedLog, block: Block, cache: Folder | None = None
    ) -> None:
        self.recommender, self.log, self.block, self.cache = recommender, log, block, cache
        self._scores: dict[int, ScoredRows] = {}

    def histogram(self, part: int) -> El2nHistogram:
        scores = self._scored(part)
        return El2nHistogram.of(scores.el2n_N, scores.group_N, len(self.log.tasks))

    def in_bins(self, part: int, bins: Mapping[int, RankedBins], grouped: bool) -> ScoredRows:
        """See BlockScorer."""
        scores = self._scored(part)
        group_N = scores.group_N if grouped else np.zeros_like(scores.group_N)
        row_N = rows_in_bins(scores.el2n_N, group_N, len(self.log.tasks), bins)
        return ScoredRows(scores.row_N[row_N], scores.el2n_N[row_N], group_N[row_N])

    @torch.no_grad()
    def embed(self, part: int, row_N: NDArray[np.int64]) -> EmbeddedRows:
        """Rows of the part by number within the block, ascending."""
        place = self.block.parts[part]
        chunks = self.log.chunks(self.block, place.first, place.first + place.rows)
        examples = embed_rows(self.recommender, joined(list(chunks)).take(row_N - place.first))
        logit_NT = predict(self.recommender.dense, examples.emb_NFD) if len(row_N) else examples.label_NT
        return EmbeddedRows(*(t.cpu().numpy() for t in (examples.emb_NFD, logit_NT, examples.label_NT)))

    def _scored(self, part: int) -> ScoredRows:
        if part not in self._scores:
            path = f"part-{part}.parquet"
            if self.cache and self.cache.exists(path):
                self._scores[part] = ScoredRows.of(self.cache.read_parquet(path))
            else:
                self._scores[part] = self._score(part)
                if self.cache:
                    self.cache.write_parquet(path, self._scores[part].table())
        return self._scores[part]

    def _score(self, part: int) -> ScoredRows:
        place = self.block.parts[part]
        chunks = [
            self._score_chunk(embed_rows(self.recommender, rows))
            for rows in self.log.chunks(self.block, place.first, place.first + place.rows)
        ]
        el2n_N, group_N = (torch.cat(t).cpu().numpy() for t in zip(*chunks, strict=True))
        return ScoredRows(np.arange(place.first, place.first + place.rows), el2n_N, group_N)

    def _score_chunk(self, rows: Examples) -> tuple[Tensor, Tensor]:
        score_N = el2n(predict(self.recommender.dense, rows.emb_NFD), rows.label_NT)
        return score_N, label_group(rows.label_NT)


class LocalScorer:
    """A BlockScorer in this process."""

    def __init__(self, parts: PartScorer) -> None:
        self.parts, self.block = parts, parts.block

    def histogram(self) -> El2nHistogram:
        counts = [self.parts.histogram(p).count_GB for p in range(len(self.block.parts))]
        return El2nHistogram(np.sum(counts, axis=0), len(self.parts.log.tasks))

    def in_bins(self, bins: Mapping[int, RankedBins], grouped: bool) -> ScoredRows:
        parts = range(len(self.block.parts))
        return ScoredRows.joined([self.parts.in_bins(part, bins, grouped) for part in parts])

    def embed(self, row_N: NDArray[np.int64]) -> EmbeddedRows:
        by_part = enumerate(rows_by_part(self.block.parts, row_N))
        return EmbeddedRows.joined([self.parts.embed(part, rows) for part, rows in by_part if len(rows)])


def rows_by_part(parts: tuple[Part, ...], row_N: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut ascending row numbers of a block into those of each part."""
    return np.split(row_N, np.searchsorted(row_N, [part.first for part in parts[1:]]))

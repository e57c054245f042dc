"""A block's rows as a checkpoint scores, aligns and embeds them, part by part.

A part is a range of row numbers, cut by rows and not by files: rows are computed on in the same batches
however the block lies in files. Every selection works on a BlockScorer, so it is the same in one process and
over a cluster. What a part's rows get are columns; who decides sees only what is gathered from them.

Shape suffixes: N rows, F fields, D embedding dim, T tasks, P proxies.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from diet_ray.config import TargetLabels
from diet_ray.distillation.addressing import BlockInfluence
from diet_ray.distillation.el2n import el2n, label_group
from diet_ray.distillation.memory import Memory
from diet_ray.distillation.row_choice import Draw, Rows
from diet_ray.log.batches import EncodedRows, joined
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.examples import Examples, predict
from diet_ray.storage import Folder
from diet_ray.training.embedding import Embedder, embed_rows

BATCH = 65_536  # rows that are embedded at once, and the fewest of a part
PART_BYTES = 64 * 2**20  # of encoded rows
PARTS = 64  # that a block is cut into before they grow to PART_BYTES

Result = TypeVar("Result")


class Span(NamedTuple):
    """A part of a block: row numbers first .. stop - 1."""

    first: int
    stop: int

    def row_numbers(self) -> NDArray[np.int64]:
        return np.arange(self.first, self.stop)


def spans(block: Block, fields: int, tasks: int, rows: int | None = None) -> list[Span]:
    """The parts of a block, of `rows` rows each; by default by its size, at most PART_BYTES each."""
    most = PART_BYTES // (4 * fields + tasks + 8)
    rows = rows or max(BATCH, min(most, -(-block.rows // PARTS)))
    return [Span(first, min(first + rows, block.rows)) for first in range(0, block.rows, rows)]


class ScoredPart(NamedTuple):
    """Columns of a part: EL2N and label group of each row."""

    first: int
    el2n_N: NDArray[np.float32]
    group_N: NDArray[np.int64]

    def row_numbers(self) -> NDArray[np.int64]:
        return np.arange(self.first, self.first + len(self.el2n_N))

    @classmethod
    def of(cls, table: pa.Table) -> "ScoredPart":
        """Inverse of `table`."""
        return cls(table["row"][0].as_py(), table["el2n"].to_numpy(), table["label_group"].to_numpy())

    def table(self) -> pa.Table:
        return pa.table({"row": self.row_numbers(), "el2n": self.el2n_N, "label_group": self.group_N})


class AlignedPart(NamedTuple):
    """Columns of a part: how far each proxy's direction lowers the loss of each row (eq. 16)."""

    first: int
    alignment_NP: NDArray[np.floating]

    def row_numbers(self) -> NDArray[np.int64]:
        return np.arange(self.first, self.first + len(self.alignment_NP))


class EmbeddedRows(NamedTuple):
    """Rows with the checkpoint's embeddings and logits, the log's labels, and the cell of their choice."""

    emb_NFD: NDArray[np.float32]
    logit_NT: NDArray[np.float32]
    label_NT: NDArray[np.float32]
    cell_N: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence["EmbeddedRows"]) -> "EmbeddedRows":
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def targets(self, labels: TargetLabels) -> Examples:
        """The rows as targets of the outer loss, with the checkpoint's probabilities or the log's labels."""
        return Examples(
            torch.tensor(self.emb_NFD),
            target_labels(labels, torch.tensor(self.logit_NT), torch.tensor(self.label_NT)),
        )

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


def target_labels(labels: TargetLabels, logit_NT: torch.Tensor, label_NT: torch.Tensor) -> torch.Tensor:
    """The checkpoint's probabilities, or the labels of the log; [N, T]."""
    return logit_NT.sigmoid() if labels == "teacher" else label_NT.to(logit_NT.dtype)


# Columns of a part, or of a part that lies elsewhere a reference to them: their holder knows which.
Columns = Sequence[Any]
# The cell of each row of a part, from its columns; [N].
Cells = Callable[[Any], NDArray[np.int64]]


class BlockScorer(Protocol):
    """A whole block under one checkpoint, wherever its parts are scored."""

    @property
    def block(self) -> Block: ...

    @property
    def tasks(self) -> int:
        """T."""
        ...

    @property
    def spans(self) -> Sequence[Span]:
        """The parts, in order."""
        ...

    def scores(self) -> Columns:
        """The ScoredPart of every part; computed once."""
        ...

    def align(self, directions: Any) -> Columns:
        """The AlignedPart of every part.

        directions: what StageWorkers.directions gave.
        """
        ...

    def gather(self, columns: Columns, work: Callable[[Any], Result]) -> Iterator[Result]:
        """What `work` makes of the columns of each part, in order: counts, not rows."""
        ...

    def choose(self, draw: Draw, columns: Columns, cells: Cells) -> Columns:
        """The chosen Rows of every part; `columns` may be the spans, where the cells need no scores."""
        ...

    def embed(self, chosen: Columns) -> Columns:
        """EmbeddedRows of the chosen rows, of every part that has any, in order."""
        ...


@dataclass(frozen=True)
class Candidates:
    """The work of looking for the candidates of a draw in a part."""

    draw: Draw
    cells: Cells

    def __call__(self, columns: Any) -> Rows:
        return self.draw.candidates(Rows(columns.row_numbers(), self.cells(columns)))


class PartScorer:
    """Works on parts of a block under one checkpoint.

    Methods take the encoded rows where they have been read already.

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

    def read(self, span: Span) -> EncodedRows:
        return joined(list(self.log.chunks(self.block, span.first, span.stop)))

    def score(self, span: Span, rows: EncodedRows | None = None) -> ScoredPart:
        """EL2N under the checkpoint, and the label group (eq. 6)."""
        path = f"rows-{span.first}-{span.stop}.parquet"
        if self.cache and self.cache.exists(path):
            return ScoredPart.of(self.cache.read_parquet(path))
        pieces = []
        for examples in self._embedded(span, rows):
            logit_NT = predict(self.recommender.dense, examples.emb_NFD)
            pieces.append((el2n(logit_NT, examples.label_NT), label_group(examples.label_NT)))
        el2n_N, group_N = (torch.cat(t).cpu().numpy() for t in zip(*pieces, strict=True))
        scored = ScoredPart(span.first, el2n_N, group_N)
        if self.cache:
            self.cache.write_parquet(path, scored.table())
        return scored

    def align(
        self, span: Span, influence: BlockInfluence, labels: TargetLabels, rows: EncodedRows | None = None
    ) -> AlignedPart:
        """How far each proxy's direction lowers the loss of each row (eq. 16)."""
        pieces = []
        for examples in self._embedded(span, rows):
            logit_NT = predict(self.recommender.dense, examples.emb_NFD)
            targets = examples._replace(label_NT=target_labels(labels, logit_NT, examples.label_NT))
            pieces.append(influence(targets).cpu().numpy())
        return AlignedPart(span.first, np.concatenate(pieces))

    @torch.no_grad()
    def embed(self, span: Span, chosen: Rows, rows: EncodedRows | None = None) -> EmbeddedRows:
        """The chosen rows of a part; `rows` are these alone."""
        rows = rows or self.read(span).take(chosen.row_N - span.first)
        examples = embed_rows(self.recommender, rows)
        logit_NT = predict(self.recommender.dense, examples.emb_NFD) if rows.rows else examples.label_NT
        tensors = (examples.emb_NFD, logit_NT, examples.label_NT)
        emb_NFD, logits_NT, label_NT = (tensor.cpu().numpy() for tensor in tensors)
        return EmbeddedRows(emb_NFD, logits_NT, label_NT, chosen.cell_N)

    def _embedded(self, span: Span, rows: EncodedRows | None) -> Iterator[Examples]:
        rows = rows or self.read(span)
        for first in range(0, rows.rows, BATCH):
            yield embed_rows(self.recommender, rows.take(slice(first, first + BATCH)))


class LocalScorer:
    """A BlockScorer in this process.

    Args:
        parts: works on the parts.
        labels: of targets, for `align`.
        part_rows: rows of a part; by default by the size of the block.
    """

    def __init__(
        self, parts: PartScorer, labels: TargetLabels = "teacher", part_rows: int | None = None
    ) -> None:
        self.parts, self.block, self.labels = parts, parts.block, labels
        self.tasks = len(parts.log.tasks)
        self.spans = spans(self.block, len(parts.log.fields), self.tasks, part_rows)
        self._scores: list[ScoredPart] = []

    def scores(self) -> list[ScoredPart]:
        self._scores = self._scores or [self.parts.score(span) for span in self.spans]
        return self._scores

    def align(self, directions: BlockInfluence) -> list[AlignedPart]:
        return [self.parts.align(span, directions, self.labels) for span in self.spans]

    def gather(self, columns: Columns, work: Callable[[Any], Result]) -> Iterator[Result]:
        return map(work, columns)

    def choose(self, draw: Draw, columns: Columns, cells: Cells) -> list[Rows]:
        chosen = draw.chosen([Candidates(draw, cells)(part) for part in columns])
        if chosen is None:
            return self.choose(draw._replace(every=True), columns, cells)
        return chosen.split([span.first for span in self.spans])

    def embed(self, chosen: Columns) -> list[EmbeddedRows]:
        pairs = [(span, rows) for span, rows in zip(self.spans, chosen, strict=True) if len(rows.row_N)]
        return [self.parts.embed(span, rows) for span, rows in pairs]

"""Scoring of a block: Ray Data reads its parts, and each goes to whichever scorer is free.

A pool of Ray Data's own lives as long as one pass and would load the checkpoint for each (docs/performance.md
has the times); these scorers are placed once for the run. What they return stays in the object store.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from actors.block_source import from_table, part_tables
from actors.worker import RunWorker
from diet_ray import layout
from diet_ray.distillation.addressing import BlockInfluence, ProxyDirection
from diet_ray.distillation.influence import alignment
from diet_ray.distillation.memory_update import block_influence
from diet_ray.distillation.row_choice import Draw, Rows
from diet_ray.distillation.scored_rows import (
    AlignedPart,
    Candidates,
    Cells,
    Columns,
    EmbeddedRows,
    PartScorer,
    ScoredPart,
    Span,
    spans,
)
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.examples import Examples, Params, dense_params, loss_of
from diet_ray.storage import Folder
from diet_ray.training.embedding import Embedder

AT_ONCE = 2  # calls that wait at a scorer, so that it never waits for the next


class Scorer(RunWorker):
    """Holds the checkpoint of a stage until the next; its calls may be repeated."""

    def __init__(
        self, data: str, run: str, config: dict[str, Any], threads: int, cache: str | None = None
    ) -> None:
        """cache: URL of the run in which runs of one reference share their scores."""
        super().__init__(data, run, config, threads)
        self.stage, self.cache = 0, cache
        self.parts: PartScorer | None = None
        self.influence: BlockInfluence | None = None

    def score(self, stage: int, span: Span, table: pa.Table | None = None) -> ScoredPart:
        """table: the rows of the part, where Ray Data has read them."""
        return self._at(stage).score(span, None if table is None else from_table(table)[0])

    def align(
        self, stage: int, span: Span, directions: list[ProxyDirection], table: pa.Table | None = None
    ) -> AlignedPart:
        parts = self._at(stage)
        if self.influence is None:
            device = parts.recommender.device
            self.influence = block_influence(self.state.log, self.state.config, directions, device)
        labels = self.state.config.method.outer.target_labels
        return parts.align(span, self.influence, labels, None if table is None else from_table(table)[0])

    def embed(self, stage: int, span: Span, chosen: Rows) -> EmbeddedRows:
        return self._at(stage).embed(span, chosen)

    def embed_table(self, stage: int, table: pa.Table) -> EmbeddedRows:
        """Embed chosen rows that Ray Data has read."""
        rows, chosen = from_table(table)
        return self._at(stage).embed(Span(0, 0), chosen, rows)

    def weigh(self, stage: int, along: Params, old: Examples) -> Any:
        """Weights of old rows (eq. 10), on the CPU; [N]."""
        judge = self._at(stage).recommender
        device = judge.device
        moved = {name: part.to(device) for name, part in along.items()}
        return alignment(loss_of(judge.dense), dense_params(judge.dense), old.to(device), moved).cpu()

    def apply(self, work: Callable[[Any], Any], columns: Any) -> Any:
        """What `work` makes of the columns of a part."""
        return work(columns)

    def chosen(self, draw: Draw, first: list[int], *candidates: Rows) -> list[Any]:
        """Whether the draw could be made, and its rows by part."""
        rows = draw.chosen(candidates)
        return [rows is not None, *(rows.split(first) if rows else [None] * len(first))]

    def checkpoint(self, stage: int) -> Embedder:
        return self.state.checkpoint(stage)

    def _at(self, stage: int) -> PartScorer:
        if self.parts is None or self.stage != stage:
            self.parts, self.influence = None, None
            state = self.state
            cache = Folder.at(f"{self.cache}/{layout.scores(stage)}") if self.cache else None
            self.parts = PartScorer(self.checkpoint(stage), state.log, state.log.block(stage), cache)
            self.stage = stage
        return self.parts


class Call(NamedTuple):
    """A method of a scorer and its arguments."""

    method: str
    arguments: tuple[Any, ...]
    returns: int = 1


class ScorerPool:
    """A BlockScorer over actors. Columns are references; rows do not pass this process.

    Args:
        scorers: the actors.
        log: the log of the block.
        block: what is scored.
        stage: number of its stage.
        cached: whether the scorers keep scores of earlier runs, so that they need not be handed the rows.
        part_rows: rows of a part; by default by the size of the block.
    """

    def __init__(
        self,
        scorers: Sequence[Any],
        log: EncodedLog,
        block: Block,
        stage: int,
        *,
        cached: bool = False,
        part_rows: int | None = None,
    ) -> None:
        self.scorers, self.log, self.block, self.stage, self.cached = scorers, log, block, stage, cached
        self.tasks = len(log.tasks)
        self.spans = spans(block, len(log.fields), self.tasks, part_rows)
        self._scores: list[Any] = []

    def scores(self) -> list[Any]:
        if not self._scores:
            calls = (Call("score", (self.stage, span, *table)) for span, table in self._parts(self.cached))
            self._scores = list(self._handed_out(calls))
        return self._scores

    def align(self, directions: Any) -> list[Any]:
        return list(
            self._handed_out(
                Call("align", (self.stage, span, directions, *table)) for span, table in self._parts()
            )
        )

    def gather(self, columns: Columns, work: Callable[[Any], Any]) -> Iterator[Any]:
        shared, waiting = ray.put(work), deque[Any]()
        for ref in self._handed_out(Call("apply", (shared, part)) for part in columns):
            waiting.append(ref)
            if len(waiting) > AT_ONCE * len(self.scorers):
                yield ray.get(waiting.popleft())
        yield from map(ray.get, waiting)

    def choose(self, draw: Draw, columns: Columns, cells: Cells) -> list[Any]:
        work = ray.put(Candidates(draw, cells))
        candidates = list(self._handed_out(Call("apply", (work, part)) for part in columns))
        first = [span.first for span in self.spans]
        # One scorer takes the candidates of all parts: less than twice the rows that are chosen, or some
        # twenty per cell; beyond 1e9 chosen rows this should be cut by cells.
        call = Call("chosen", (draw, first, *candidates), returns=1 + len(first))
        [[done, *rows]] = self._handed_out([call])
        if not ray.get(done):
            return self.choose(draw._replace(every=True), columns, cells)
        return rows

    def embed(self, chosen: Columns) -> list[Any]:
        if len(self.spans) == 1:
            calls: Iterable[Call] = [Call("embed", (self.stage, self.spans[0], chosen[0]))]
        else:
            tables = part_tables(self.log, self.block, self.spans, chosen)
            calls = (Call("embed_table", (self.stage, table)) for table in tables)
        return list(self._handed_out(calls))

    def weigh(self, along: Any, pieces: Sequence[Any]) -> list[Any]:
        """References to the weights of the pieces of an old memory; see StageMemory."""
        return list(self._handed_out(Call("weigh", (self.stage, along, piece)) for piece in pieces))

    def _parts(self, cached: bool = False) -> Iterator[tuple[Span, tuple[Any, ...]]]:
        """Each part with its table; without one where the scorer reads it itself: a part alone, for which
        Ray Data does not pay."""
        if cached or len(self.spans) == 1:
            yield from ((span, ()) for span in self.spans)
            return
        tables = part_tables(self.log, self.block, self.spans)
        yield from ((span, (table,)) for span, table in zip(self.spans, tables, strict=True))

    def _handed_out(self, calls: Iterable[Call]) -> Iterator[Any]:
        """References to the results, in order; each call goes to a scorer with fewer than AT_ONCE."""
        free = deque(list(self.scorers) * AT_ONCE)
        running: dict[Any, Any] = {}
        for call in calls:
            if not free:
                done, _ = ray.wait(list(running), num_returns=1, fetch_local=False)
                free.appendleft(running.pop(done[0]))
            scorer = free.popleft()
            method = getattr(scorer, call.method).options(num_returns=call.returns)
            result = method.remote(*call.arguments)
            running[result if call.returns == 1 else result[0]] = scorer
            yield result

"""Cuts what arrives into micro-blocks.

A block takes rows in the order in which they arrive and is cut after `block_rows` of them, in the middle of a
file or a message where need be; its commit record says what it took, so a stream that was killed takes the
same rows again. A row older than the newest row taken by more than the allowed lateness is set aside, an
event seen before is dropped, and both are counted.
"""

import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import layout
from diet_ray.log.dataset import Block, plain_block
from diet_ray.log.encoding import block_of, write_part
from diet_ray.log.normalise import EVENT
from diet_ray.log.schema import HashedConfig, LogSchema
from diet_ray.log.stream.arrivals import NO_ROWS, Arrivals, Piece, behind, up_to
from diet_ray.log.stream.config import StreamConfig
from diet_ray.log.stream.intake_state import IntakeState, Taken
from diet_ray.log.vocabulary import Encoder, HashedEncoder, Vocabulary, counted
from diet_ray.storage import FileStamp, Folder

NO_EVENTS = pa.table({EVENT: pa.array([], pa.string()), "ts": pa.array([], pa.int64())})
PART_ROWS = 65_536  # of a file of a block; the parts of a block are scored in parallel


class Closed(NamedTuple):
    """A micro-block on disk, and what its commit record keeps of where it came from."""

    block: Block
    files: tuple[FileStamp, ...]
    state: IntakeState


class Intake:
    """Turns what arrives into micro-blocks in `folder`, going on after what is committed."""

    def __init__(
        self,
        folder: Folder,
        arrivals: Arrivals,
        schema: LogSchema,
        config: StreamConfig,
        committed: Iterable[IntakeState],
    ) -> None:
        """committed: `Closed.state` of every committed stage, in order."""
        self.folder, self.arrivals, self.schema, self.config = folder, arrivals, schema, config
        self.read: dict[str, int] = {}  # the place up to which each origin was read
        self.exhausted: set[str] = set()  # origins of which nothing more comes
        self.watermark: int | None = None
        self.known = {field: Vocabulary() for field in schema.field_names}
        self.recent = NO_EVENTS  # as far back as a row may be late
        self.pending: list[Piece] = []
        self.remaining = NO_ROWS  # of rows that were taken, too few for a block
        self.taken: list[Taken] = []  # since the last block
        self.counts: Counter[str] = Counter()
        self.quarantined: dict[str, list[pa.Table]] = {}
        states = list(committed)
        bound = states[-1].watermark - config.lateness * 1000 if states else 0
        for stage, state in enumerate(states, start=1):
            self._recall(stage, state)
            if schema.event_id and state.watermark >= bound:
                self._remember(folder.read_parquet(layout.events(stage)))

    def _recall(self, stage: int, state: IntakeState) -> None:
        for taken in state.taken:
            self._mark(*taken)
        self.watermark = state.watermark
        if not isinstance(self.schema.encoder, HashedConfig):
            for field in state.grown:
                self.known[field].extend(self.folder.read_parquet(layout.vocabulary(f"{stage:04d}", field)))

    def _mark(self, origin: str, start: int, stop: int, last: bool) -> None:
        self.read[origin] = stop
        if last:
            self.exhausted.add(origin)

    @property
    def rows(self) -> int:
        """Rows that wait for their block to close."""
        return self.remaining.num_rows + sum(piece.rows.num_rows for piece in self.pending)

    @property
    def waiting(self) -> int | None:
        """Files or messages that were not read yet."""
        return self.arrivals.waiting(self.read, self.exhausted)

    def poll(self) -> bool:
        """Read what is new until a block's rows wait; return whether there was anything.

        Raises DataError naming a file or message that cannot be read, where the schema does not say
        `malformed: quarantine`.
        """
        if self.rows >= self.config.block_rows:
            return False
        is_new = False
        for piece in self.arrivals.read(self.read, self.exhausted):
            self.pending.append(piece)
            self._mark(piece.origin, piece.start, piece.stop, piece.last)
            is_new = True
            if self.rows >= self.config.block_rows:
                break
        return is_new

    def close(self, stage: int, *, whole: bool = False) -> Closed | None:
        """The micro-block of a stage once `block_rows` rows wait, or with all that wait if `whole`.

        None where there are too few, or where nearly all of them were late or known already: the rest waits
        for more rows, and the counts go into the record of the next block.
        """
        enough = min(self.config.min_rows, self.config.block_rows)
        while self.rows >= self.config.block_rows or (whole and self.pending):
            rows = self._in_time(self._take(self.config.block_rows - self.remaining.num_rows))
            tables = [table for table in (self.remaining, rows) if table.num_rows]
            self.remaining = self._without_known(pa.concat_tables(tables)) if tables else NO_ROWS
            if self.remaining.num_rows >= enough:
                rows, self.remaining = self.remaining, NO_ROWS
                return self._write(stage, rows)
            self.poll()
        return None

    def skip(self) -> int:
        """Set the rows of the next block aside instead of closing it; return how many.

        What is no longer available (a topic's retention has passed) is left out too.
        """
        for origin, place in self.arrivals.skip_lost(self.read).items():
            self.taken.append(Taken(origin, self.read[origin], place, False))
            self.read[origin] = place
        self.poll()
        rows = self._take(self.config.block_rows)
        self._set_aside("skipped", rows)
        return rows.num_rows

    def _take(self, count: int) -> pa.Table:
        """Take the first `count` rows that wait."""
        tables: list[pa.Table] = []
        while self.pending and (count > 0 or not self.pending[0].rows.num_rows):
            piece = self.pending.pop(0)
            if piece.rows.num_rows > count:
                stop = int(piece.place_N[count - 1])
                self.pending.insert(0, behind(piece, stop))
                piece = up_to(piece, stop)
            count -= piece.rows.num_rows
            self.taken.append(Taken(piece.origin, piece.start, piece.stop, piece.last))
            if piece.unread:
                self.counts["files_quarantined"] += 1
            self.counts.update(piece.notes)
            for table in piece.rejected:
                self._set_aside("malformed", table)
            if piece.rows.num_rows:
                tables.append(piece.rows)
        return pa.concat_tables(tables) if tables else NO_ROWS

    def _set_aside(self, why: str, rows: pa.Table) -> None:
        self.counts[why] += rows.num_rows
        if rows.num_rows:
            self.quarantined.setdefault(why, []).append(rows)

    def _in_time(self, rows: pa.Table) -> pa.Table:
        """Rows that are neither late nor ahead of the clock, where one would make all that follow late."""
        if not rows.num_rows:
            return rows
        ahead = pc.greater(rows["ts"], int((time.time() + self.config.ahead) * 1000))
        self._set_aside("ahead", rows.filter(ahead))
        rows = rows.filter(pc.invert(ahead))
        if self.watermark is None:
            return rows
        late = pc.less(rows["ts"], int(self.watermark - self.config.lateness * 1000))
        self._set_aside("late", rows.filter(late))
        return rows.filter(pc.invert(late))

    def _without_known(self, rows: pa.Table) -> pa.Table:
        """Each event once; rows without an event id are all kept."""
        if not self.schema.event_id or not rows.num_rows:
            return rows
        event = rows[EVENT].combine_chunks()
        coded = event.dictionary_encode(null_encoding="mask").indices.fill_null(-1).to_numpy()
        first_N = np.zeros(len(event), bool)
        first_N[np.unique(coded, return_index=True)[1]] = True
        known_N = pc.is_in(event, value_set=self.recent[EVENT].combine_chunks()).to_numpy(
            zero_copy_only=False
        )
        kept_N = (first_N & ~known_N) | (coded < 0)
        self.counts["duplicates"] += int((~kept_N).sum())
        return rows.filter(pa.array(kept_N))

    def _write(self, stage: int, rows: pa.Table) -> Closed:
        name = f"{stage:04d}"
        files: list[FileStamp] = []
        grown = self._grow(stage, rows, files)
        parts = []
        for number in range(-(-rows.num_rows // PART_ROWS)):
            piece = rows.slice(number * PART_ROWS, PART_ROWS)
            parts.append(write_part(self.folder, piece, self.schema, name, number, self._encoder))
        table_rows = tuple(self._encoder(field).rows for field in self.schema.field_names)
        block = block_of(name, parts, table_rows)
        self.watermark = max(block.max_ts, self.watermark or block.max_ts)
        if self.schema.event_id:
            events = rows.select([EVENT, "ts"])
            files.append(self.folder.write_parquet(layout.events(stage), events))
            self._remember(events)
        for reason, tables in self.quarantined.items():
            for number, table in enumerate(tables):  # of files that may differ in their columns
                path = layout.quarantined(stage, reason, number)
                files.append(self.folder.write_parquet(path, table))
        files.append(self.folder.write_json(layout.stream_block(stage), plain_block(block)))
        state = IntakeState(
            taken=tuple(self.taken),
            watermark=self.watermark,
            grown=tuple(grown),
            counts=dict(self.counts),
        )
        self.taken, self.counts, self.quarantined = [], Counter(), {}
        return Closed(block, (*(part.stamp for part in parts), *files), state)

    def _grow(self, stage: int, rows: pa.Table, files: list[FileStamp]) -> list[str]:
        """Grow the vocabularies; return the fields that have new ids."""
        if isinstance(self.schema.encoder, HashedConfig):
            return []
        grown = []
        for field, vocabulary in self.known.items():
            increment = vocabulary.grow(counted(rows[field]), self.schema.encoder.min_count)
            if increment.num_rows:
                files.append(self.folder.write_parquet(layout.vocabulary(f"{stage:04d}", field), increment))
                grown.append(field)
        return grown

    def _encoder(self, field: str) -> Encoder:
        if isinstance(self.schema.encoder, HashedConfig):
            return HashedEncoder(self.schema.encoder.buckets)
        return self.known[field]

    def _remember(self, events: pa.Table) -> None:
        assert self.watermark is not None
        both = pa.concat_tables([self.recent, events.filter(pc.is_valid(events[EVENT]))])
        # An older event would be set aside as late before it is compared with the known ones.
        recent = pc.greater_equal(both["ts"], int(self.watermark - self.config.lateness * 1000))
        self.recent = both.filter(recent).combine_chunks()

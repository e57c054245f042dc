"""Cuts what arrives into micro-blocks.

A block takes rows in the order in which they arrive and is cut after `block_rows` of them, in the middle of a
file or a message where need be; what it took is in its commit record, so a stream that was killed takes the
same rows again. A row whose time lies behind the newest row taken by more than the allowed lateness is set
aside, an event seen before is dropped, and both are counted.
"""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import DataError
from diet_ray.log.dataset import Block, plain_block
from diet_ray.log.encoding import block_of, one_table, write_part
from diet_ray.log.normalise import EVENT
from diet_ray.log.schema import HashedConfig, LogSchema
from diet_ray.log.stream.arrivals import NO_ROWS, Arrivals, Piece, behind, refused, up_to
from diet_ray.log.stream.log import StreamConfig
from diet_ray.log.vocabulary import Encoder, HashedEncoder, Vocabulary
from diet_ray.storage import FileStamp, Folder

PART_ROWS = 65_536  # of a file of a block; the parts of a block are scored in parallel


class Taken(NamedTuple):
    """What lies behind place `start` of an origin, up to place `stop`; `done`: nothing more comes of it."""

    origin: str
    start: int
    stop: int
    done: bool


class Closed(NamedTuple):
    """A micro-block on disk, and what the commit record has to say of where it came from."""

    block: Block
    files: tuple[FileStamp, ...]
    state: dict[str, Any]


class Intake:
    """Turns what arrives into micro-blocks in `folder`, going on after what is committed."""

    def __init__(
        self,
        folder: Folder,
        arrivals: Arrivals,
        schema: LogSchema,
        config: StreamConfig,
        committed: Iterable[dict[str, Any]],
    ) -> None:
        """committed: `Closed.state` of every committed stage, in order."""
        self.folder, self.arrivals, self.schema, self.config = folder, arrivals, schema, config
        self.read: dict[str, int] = {}  # the place up to which each origin was read
        self.over: set[str] = set()  # origins of which nothing more comes
        self.watermark: int | None = None
        self.types: dict[str, str] = {}
        self.known = {field: Vocabulary() for field in schema.field_names}
        self.recent = pd.Series(dtype="int64")  # event id -> ts, as far back as a row may be late
        self.pending: list[Piece] = []
        self.left = NO_ROWS  # of rows that were taken, too few for a block
        self.carried: list[Taken] = []  # since the last block
        self.counts: Counter[str] = Counter()
        self.aside: dict[str, list[pa.Table]] = {}
        states = list(committed)
        bound = states[-1]["watermark"] - config.lateness * 1000 if states else 0
        for stage, state in enumerate(states, start=1):
            self._recall(stage, state)
            if schema.event_id and state["watermark"] >= bound:
                self._remember(folder.read_parquet(_events_path(stage)))

    def _recall(self, stage: int, state: dict[str, Any]) -> None:
        for taken in state["taken"]:
            self._mark(*taken)
        self.watermark, self.types = state["watermark"], state["types"]
        if not isinstance(self.schema.encoder, HashedConfig):
            for field in state["grown"]:
                self.known[field].extend(self.folder.read_parquet(_vocabulary_path(stage, field)))

    def _mark(self, origin: str, start: int, stop: int, last: bool) -> None:
        self.read[origin] = stop
        if last:
            self.over.add(origin)

    @property
    def rows(self) -> int:
        """Rows that wait for their block to close."""
        return self.left.num_rows + sum(piece.rows.num_rows for piece in self.pending)

    @property
    def waiting(self) -> int | None:
        """Files or messages that were not read yet."""
        return self.arrivals.waiting(self.read, self.over)

    def poll(self) -> bool:
        """Read what is new until a block's rows wait; return whether there was anything.

        Raises DataError naming a file or message that cannot be read or is of another schema, where the
        schema does not say `malformed: quarantine`.
        """
        found = False
        if self.rows >= self.config.block_rows:
            return found
        for piece in self.arrivals.read(self.read, self.over):
            self.pending.append(self._of_known_types(piece))
            self._mark(piece.origin, piece.start, piece.stop, piece.last)
            found = True
            if self.rows >= self.config.block_rows:
                break
        return found

    def _of_known_types(self, piece: Piece) -> Piece:
        """The piece; without its rows where ids are of another type than before."""
        if isinstance(self.schema.encoder, HashedConfig) or not piece.rows.num_rows:
            return piece
        for field in self.schema.field_names:
            found = str(piece.rows[field].type)
            if self.types.setdefault(field, found) != found:
                wrong = f"{piece.origin}: field {field} is {found}, before it was {self.types[field]}"
                if self.schema.malformed == "error":
                    raise DataError(wrong)
                return refused(piece, wrong)
        return piece

    def close(self, stage: int, *, whole: bool = False) -> Closed | None:
        """The micro-block of a stage once `block_rows` rows wait, or with all that wait if `whole`.

        None where there are too few, or where nearly all of them were late or known already: what is left of
        them waits for more, and what they were is told with the next block.
        """
        enough = min(self.config.min_rows, self.config.block_rows)
        while self.rows >= self.config.block_rows or (whole and self.pending):
            rows = self._in_time(self._take(self.config.block_rows - self.left.num_rows))
            tables = [table for table in (self.left, rows) if table.num_rows]
            self.left = self._without_known(one_table(tables, self.schema)) if tables else NO_ROWS
            if self.left.num_rows >= enough:
                rows, self.left = self.left, NO_ROWS
                return self._write(stage, rows)
            self.poll()
        return None

    def skip(self) -> int:
        """Set the rows of the next block aside instead of closing it; return how many.

        What is not to be had any more (a topic's retention has passed) is left out too.
        """
        for origin, place in self.arrivals.skip_lost(self.read).items():
            self.carried.append(Taken(origin, self.read[origin], place, False))
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
            self.carried.append(Taken(piece.origin, piece.start, piece.stop, piece.last))
            if piece.unread:
                self.counts["files set aside"] += 1
            for table in piece.rejected:
                self._set_aside("malformed", table)
            if piece.rows.num_rows:
                tables.append(piece.rows)
        return one_table(tables, self.schema) if tables else NO_ROWS

    def _set_aside(self, why: str, rows: pa.Table) -> None:
        self.counts[why] += rows.num_rows
        if rows.num_rows:
            self.aside.setdefault(why, []).append(rows)

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
        """Each event once; a row without an event id is nobody's double."""
        if not self.schema.event_id or not rows.num_rows:
            return rows
        event = rows[EVENT].to_pandas()
        double = (event.duplicated() | event.isin(self.recent.index)) & event.notna()
        self.counts["duplicates"] += int(double.sum())
        return rows.filter(pa.array(~double.to_numpy()))

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
            files.append(self.folder.write_parquet(_events_path(stage), events))
            self._remember(events)
        for why, tables in self.aside.items():
            for number, table in enumerate(tables):  # of files that may differ in their columns
                files.append(self.folder.write_parquet(f"quarantine/{name}/{why}-{number}.parquet", table))
        files.append(self.folder.write_json(f"blocks/{name}/block.json", plain_block(block)))
        state = {
            "taken": [list(taken) for taken in self.carried],
            "watermark": self.watermark,
            "types": self.types,
            "grown": grown,
            "counts": dict(self.counts),
        }
        self.carried, self.counts, self.aside = [], Counter(), {}
        return Closed(block, (*(part.stamp for part in parts), *files), state)

    def _grow(self, stage: int, rows: pa.Table, files: list[FileStamp]) -> list[str]:
        """Grow the vocabularies; return the fields that have new ids."""
        if isinstance(self.schema.encoder, HashedConfig):
            return []
        grown = []
        for field, vocabulary in self.known.items():
            ids, count = rows[field].value_counts().flatten()
            increment = vocabulary.grow(pa.table({"id": ids, "count": count}), self.schema.encoder.min_count)
            if increment.num_rows:
                files.append(self.folder.write_parquet(_vocabulary_path(stage, field), increment))
                grown.append(field)
        return grown

    def _encoder(self, field: str) -> Encoder:
        if isinstance(self.schema.encoder, HashedConfig):
            return HashedEncoder(self.schema.encoder.buckets)
        return self.known[field]

    def _remember(self, events: pa.Table) -> None:
        new = pd.Series(events["ts"].to_numpy(), index=events[EVENT].to_pandas())
        both = pd.concat([self.recent, new[new.index.notna()]])
        assert self.watermark is not None
        # An older event would be set aside as late before anybody asks whether it is known.
        self.recent = both[both >= self.watermark - self.config.lateness * 1000]


def _vocabulary_path(stage: int, field: str) -> str:
    return f"vocabulary/{stage:04d}/{field}.parquet"


def _events_path(stage: int) -> str:
    return f"events/{stage:04d}/events.parquet"

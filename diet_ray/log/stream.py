"""A growing directory of files as micro-blocks.

A block takes rows in the order in which they arrive and is cut after `block_rows` of them, in the middle of a
file where need be; what it took is in its commit record, so a stream that was killed takes the same rows
again. A row whose time lies behind the newest row taken by more than the allowed lateness is set aside, an
event seen before is dropped, and both are counted.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from diet_ray.errors import DataError
from diet_ray.log.dataset import Block, EncodedLog, parse_block, plain_block
from diet_ray.log.encoding import block_of, one_table, write_part
from diet_ray.log.normalise import EVENT, normalise
from diet_ray.log.schema import HashedConfig, LogSchema, parse_schema
from diet_ray.log.source import chunks, matching_files
from diet_ray.log.vocabulary import Encoder, HashedEncoder, Vocabulary
from diet_ray.storage import FileStamp, Folder
from diet_ray.strict import Strict

MANIFEST = "stream.json"
FORMAT = 1
PART_ROWS = 65_536  # of a file of a block; the parts of a block are scored in parallel
NO_ROWS = pa.table({"ts": pa.array([], pa.int64()), "row": pa.array([], pa.int64())})


class StreamConfig(Strict):
    """When a micro-block closes, what it may still take, and how much of the past is kept."""

    block_rows: Annotated[int, Field(ge=2)] = 30_000
    block_seconds: Annotated[float, Field(gt=0)] = 600.0  # after which a block closes with fewer rows
    min_rows: Annotated[int, Field(ge=2)] = 1_000  # of a block that closes by time
    lateness: Annotated[float, Field(ge=0)] = 3600.0  # seconds behind the newest committed row
    max_memory_rows: Annotated[int, Field(ge=2)] = 50_000
    new_factor: Annotated[float, Field(gt=0)] = 2.0  # new rows of memory per row that the ratio would take
    keep_last: Annotated[int, Field(ge=2)] = 3  # stages whose files are kept
    keep_every: Annotated[int, Field(ge=0)] = 0  # every n-th stage is kept for good; 0: none
    max_fall: Annotated[float, Field(gt=0)] = 0.1  # of progressive AUC below the mean of RECENT blocks

    def keeps(self, stage: int, newest: int) -> bool:
        """Whether the files of `stage` are still wanted when `newest` is committed."""
        return stage > newest - self.keep_last or bool(self.keep_every and stage % self.keep_every == 0)


class StreamLog(EncodedLog):
    """The blocks of a stream, which lie in its run directory."""

    @classmethod
    def create(cls, folder: Folder, schema: LogSchema) -> "StreamLog":
        """Start a stream, or open it again; DataError where the folder holds one of another schema."""
        names = {"name": schema.name, "fields": schema.field_names, "tasks": schema.task_names}
        manifest = {"format": FORMAT, **names, "schema": schema.plain()}
        if not folder.exists(MANIFEST):
            folder.write_json(MANIFEST, manifest)
        log = cls.open(folder)
        if log.schema.plain() != schema.plain():
            raise DataError(f"{folder.root} holds a stream of another schema; choose another run directory")
        return log

    @classmethod
    def open(cls, folder: Folder) -> "StreamLog":
        manifest = folder.read_json(MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(f"{folder / MANIFEST} is of another format; this version reads format {FORMAT}")
        fingerprint = hashlib.sha256(folder.read(MANIFEST)).hexdigest()
        names = (manifest["name"], tuple(manifest["fields"]), tuple(manifest["tasks"]))
        log = cls(folder, *names, fingerprint)
        log.schema = parse_schema(manifest["schema"], "of the stream")
        return log

    schema: LogSchema

    def block(self, stage: int) -> Block:
        return parse_block(self.folder.read_json(f"blocks/{stage:04d}/block.json"))


class Taken(NamedTuple):
    """Rows [start, stop) of a file, counted as they lie in it; `done`: nothing is left of it."""

    file: str
    start: int
    stop: int
    done: bool


class Piece(NamedTuple):
    """What is left of a file that was read."""

    file: str
    start: int
    stop: int  # rows of the file
    rows: pa.Table
    row_N: np.ndarray  # number of each row in the file, from 1
    rejected: pa.Table


class Closed(NamedTuple):
    """A micro-block on disk, and what the commit record has to say of where it came from."""

    block: Block
    files: tuple[FileStamp, ...]
    state: dict[str, Any]


class Intake:
    """Turns the files of `source` into micro-blocks in `folder`, going on after what is committed."""

    def __init__(
        self,
        folder: Folder,
        source: str,
        schema: LogSchema,
        config: StreamConfig,
        committed: Iterable[dict[str, Any]],
    ) -> None:
        """committed: `Closed.state` of every committed stage, in order."""
        self.folder, self.source, self.schema, self.config = folder, source, schema, config
        self.position: dict[str, int] = {}
        self.done: set[str] = set()
        self.watermark: int | None = None
        self.types: dict[str, str] = {}
        self.known = {field: Vocabulary() for field in schema.field_names}
        self.recent = pd.Series(dtype="int64")  # event id -> ts, as far back as a row may be late
        self.pending: list[Piece] = []
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
        self._note([Taken(*taken) for taken in state["taken"]])
        self.watermark, self.types = state["watermark"], state["types"]
        if not isinstance(self.schema.encoder, HashedConfig):
            for field in state["grown"]:
                self.known[field].extend(self.folder.read_parquet(_vocabulary_path(stage, field)))

    def _note(self, taken: list[Taken]) -> None:
        for part in taken:
            self.position[part.file] = part.stop
            if part.done:
                self.done.add(part.file)

    @property
    def rows(self) -> int:
        """Rows that wait for their block to close."""
        return sum(piece.rows.num_rows for piece in self.pending)

    def poll(self) -> bool:
        """Read new files, in order of name, until a block's rows wait; return whether there was one.

        Raises DataError naming a file that cannot be read or is of another schema, where the schema does not
        say `malformed: quarantine`.
        """
        found = False
        for name in self._new_files():
            if self.rows >= self.config.block_rows:
                break
            self.pending.append(self._read(name))
            found = True
        return found

    def _new_files(self) -> list[str]:
        raw = Folder.at(self.source)
        raw.fs.invalidate_cache()
        known = self.done | {piece.file for piece in self.pending}
        paths = matching_files(raw, self.schema.files.patterns)
        names = [path.removeprefix(raw.root).lstrip("/") for path in paths]
        return [name for name in names if name not in known]

    def _read(self, name: str) -> Piece:
        start = self.position.get(name, 0)
        try:
            return self._whole(name, start)
        except DataError as damaged:
            if self.schema.malformed == "error":
                raise
            self.counts["files set aside"] += 1
            reason = pa.table({"file": [name], "row": [start + 1], "reason": [str(damaged)]})
            return Piece(name, start, start, NO_ROWS, np.zeros(0, np.int64), reason)

    def _whole(self, name: str, start: int) -> Piece:
        tables, numbers, rejected, stop = [], [], [], 0
        raw = Folder.at(self.source)
        for chunk in chunks(raw.fs.unstrip_protocol(raw / name), self.schema, self.source):
            normal = normalise(chunk, self.schema)
            tables.append(normal.rows)
            numbers.append(normal.row.to_numpy())
            rejected.append(normal.rejected)
            stop = chunk.first_row + chunk.table.num_rows
        if not tables:
            return Piece(name, start, start, NO_ROWS, np.zeros(0, np.int64), NO_ROWS)
        rows, row_N = one_table(tables, self.schema), np.concatenate(numbers)
        self._check_types(name, rows)
        left = row_N > start
        aside = pa.concat_tables(rejected, promote_options="default")
        aside = aside.filter(pc.greater(aside["row"], start))
        return Piece(name, start, stop, rows.filter(pa.array(left)), row_N[left], aside)

    def _check_types(self, name: str, rows: pa.Table) -> None:
        if isinstance(self.schema.encoder, HashedConfig):
            return
        for field in self.schema.field_names:
            found = str(rows[field].type)
            if self.types.setdefault(field, found) != found:
                raise DataError(
                    f"{name}: field {field} is {found}, in the files before it was {self.types[field]}"
                )

    def close(self, stage: int, *, whole: bool = False) -> Closed | None:
        """The micro-block of a stage once `block_rows` rows wait, or with all that wait if `whole`.

        None where there are too few, or where all of them were late or known already: what they were is then
        told with the next block.
        """
        while self.rows >= self.config.block_rows or (whole and self.rows):
            rows = self._take(min(self.rows, self.config.block_rows))
            rows = self._without_known(self._without_late(rows))
            if rows.num_rows >= 2:
                return self._write(stage, rows)
            self.poll()
        return None

    def skip(self) -> int:
        """Set the rows of the next block aside instead of closing it; return how many."""
        rows = self._take(min(self.rows, self.config.block_rows))
        self.counts["skipped"] += rows.num_rows
        self._set_aside("skipped", rows)
        return rows.num_rows

    def _take(self, count: int) -> pa.Table:
        """Take the first `count` rows that wait."""
        tables: list[pa.Table] = []
        while self.pending and (count > 0 or not self.pending[0].rows.num_rows):
            piece = self.pending.pop(0)
            if piece.rows.num_rows > count:
                stop = int(piece.row_N[count - 1])
                rest = pc.greater(piece.rejected["row"], stop)
                self.pending.insert(
                    0,
                    piece._replace(
                        start=stop,
                        rows=piece.rows.slice(count),
                        row_N=piece.row_N[count:],
                        rejected=piece.rejected.filter(rest),
                    ),
                )
                piece = piece._replace(
                    stop=stop,
                    rows=piece.rows.slice(0, count),
                    rejected=piece.rejected.filter(pc.invert(rest)),
                )
                taken = Taken(piece.file, piece.start, stop, False)
            else:
                taken = Taken(piece.file, piece.start, piece.stop, True)
            count -= piece.rows.num_rows
            self.carried.append(taken)
            self._note([taken])
            self.counts["malformed"] += piece.rejected.num_rows
            self._set_aside("malformed", piece.rejected)
            if piece.rows.num_rows:
                tables.append(piece.rows)
        return one_table(tables, self.schema) if tables else NO_ROWS

    def _set_aside(self, why: str, rows: pa.Table) -> None:
        if rows.num_rows:
            self.aside.setdefault(why, []).append(rows)

    def _without_late(self, rows: pa.Table) -> pa.Table:
        if self.watermark is None or not rows.num_rows:
            return rows
        late = pc.less(rows["ts"], int(self.watermark - self.config.lateness * 1000))
        self.counts["late"] += pc.sum(late).as_py() or 0
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

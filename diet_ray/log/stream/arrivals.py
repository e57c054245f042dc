"""What arrives at a stream, piece by piece; the files of a growing directory."""

from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import DataError
from diet_ray.log.encoding import one_table
from diet_ray.log.normalise import normalise
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import chunks, matching_files
from diet_ray.storage import Folder

NO_PLACES = np.zeros(0, np.int64)
NO_ROWS = pa.table({"ts": pa.array([], pa.int64()), "row": pa.array([], pa.int64())})


class Piece(NamedTuple):
    """Rows of one origin (a file, a partition of a topic) that were read together."""

    origin: str
    start: int  # the place up to which the origin was read before
    stop: int  # the place up to which it is read now
    rows: pa.Table  # normalised
    place_N: np.ndarray  # of each row within its origin, rising; in a file its number, from 1
    rejected: tuple[pa.Table, ...]  # what cannot be rows, as it came, with file, row (its place) and reason
    last: bool  # nothing more comes from this origin
    unread: bool = False  # nothing of it could be read


class Arrivals(Protocol):
    def read(self, after: Mapping[str, int], over: Set[str]) -> Iterator[Piece]:
        """What lies behind the places `after`, of origins that are not `over`; read as it is asked for.

        Raises DataError naming the origin and the place of what cannot be read, where the schema does not say
        `malformed: quarantine`.
        """

    def waiting(self, after: Mapping[str, int], over: Set[str]) -> int | None:
        """How many files or messages have arrived and were not read; None where nobody can tell now."""

    def skip_lost(self, after: Mapping[str, int]) -> dict[str, int]:
        """Places to go on from where what lies behind `after` is not to be had any more, by origin."""


class DirectoryArrivals:
    """Files below a directory, in the order of their names as they appear; writers publish them by rename."""

    def __init__(self, source: str, schema: LogSchema) -> None:
        self.source, self.schema = source, schema

    def read(self, after: Mapping[str, int], over: Set[str]) -> Iterator[Piece]:
        for name in self._new_files(over):
            yield self._read(name, after.get(name, 0))

    def waiting(self, after: Mapping[str, int], over: Set[str]) -> int | None:
        return len(self._new_files(over))

    def skip_lost(self, after: Mapping[str, int]) -> dict[str, int]:
        return {}

    def _new_files(self, over: Set[str]) -> list[str]:
        raw = Folder.at(self.source)
        raw.fs.invalidate_cache()
        paths = matching_files(raw, self.schema.files.patterns)
        names = [path.removeprefix(raw.root).lstrip("/") for path in paths]
        return [name for name in names if name not in over]

    def _read(self, name: str, start: int) -> Piece:
        try:
            return self._whole(name, start)
        except DataError as damaged:
            # An error of the system (a timeout, too many open files) says nothing about the file.
            if self.schema.malformed == "error" or getattr(damaged.__cause__, "errno", None):
                raise
            return refused(Piece(name, start, start, NO_ROWS, NO_PLACES, (), True), str(damaged))

    def _whole(self, name: str, start: int) -> Piece:
        tables, numbers, rejected, stop = [], [], [], 0
        raw = Folder.at(self.source)
        for chunk in chunks(raw.fs.unstrip_protocol(raw / name), self.schema, self.source):
            normal = normalise(chunk, self.schema)
            tables.append(normal.rows)
            numbers.append(normal.row.to_numpy())
            rejected.append(normal.rejected)
            stop += chunk.table.num_rows
        if not tables:
            return Piece(name, start, start, NO_ROWS, NO_PLACES, (), True)
        whole = Piece(
            name,
            start,
            stop,
            one_table(tables, self.schema),
            np.concatenate(numbers),
            tuple(rejected),
            True,
        )
        return behind(whole, start)


def behind(piece: Piece, start: int) -> Piece:
    """What of a piece lies behind a place of its origin."""
    left = piece.place_N > start
    return piece._replace(
        start=start,
        rows=piece.rows.filter(pa.array(left)),
        place_N=piece.place_N[left],
        rejected=tuple(table.filter(pc.greater(table["row"], start)) for table in piece.rejected),
    )


def up_to(piece: Piece, stop: int) -> Piece:
    """What of a piece lies up to a place of its origin."""
    taken = piece.place_N <= stop
    return piece._replace(
        stop=stop,
        rows=piece.rows.filter(pa.array(taken)),
        place_N=piece.place_N[taken],
        rejected=tuple(table.filter(pc.less_equal(table["row"], stop)) for table in piece.rejected),
        last=False,
    )


def refused(piece: Piece, reason: str) -> Piece:
    """A piece of which no row is taken: its rows, or a row that stands for it, with the reason."""
    count = max(1, piece.rows.num_rows)
    place_N = piece.place_N if piece.rows.num_rows else np.array([piece.start + 1])
    rows = {name: piece.rows[name] for name in piece.rows.column_names} if piece.rows.num_rows else {}
    told = {"file": pa.array([piece.origin] * count), "row": place_N, "reason": pa.array([reason] * count)}
    rejected = (*piece.rejected, pa.table({**rows, **told}))
    return piece._replace(rows=NO_ROWS, place_N=NO_PLACES, rejected=rejected, unread=True)

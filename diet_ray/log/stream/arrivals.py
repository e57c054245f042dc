"""What arrives at a stream, piece by piece; the files of a growing directory."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import DataError
from diet_ray.log.files import matching_files, side_urls, url_of
from diet_ray.log.normalise import normalise
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import chunks
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
    notes: Mapping[str, int] = MappingProxyType({})  # of log.normalise, of the rows that were read


class Arrivals(Protocol):
    def read(self, after: Mapping[str, int], exhausted: Set[str]) -> Iterator[Piece]:
        """What lies behind the places `after`, of origins that are not `exhausted`; read lazily.

        Raises DataError naming the origin and the place of what cannot be read, where the schema does not say
        `malformed: quarantine`.
        """

    def waiting(self, after: Mapping[str, int], exhausted: Set[str]) -> int | None:
        """How many files or messages have arrived and were not read; None where that is unknown now."""

    def skip_lost(self, after: Mapping[str, int]) -> dict[str, int]:
        """Origin -> place to go on from, where what lies behind `after` is no longer available."""


class DirectoryArrivals:
    """Files below a directory, in the order of their names as they appear; writers publish them by rename."""

    def __init__(self, source: str, schema: LogSchema) -> None:
        self.source, self.schema = source, schema

    def read(self, after: Mapping[str, int], exhausted: Set[str]) -> Iterator[Piece]:
        for name in self._new_files(exhausted):
            yield self._read(name, after.get(name, 0))

    def waiting(self, after: Mapping[str, int], exhausted: Set[str]) -> int | None:
        return len(self._new_files(exhausted))

    def skip_lost(self, after: Mapping[str, int]) -> dict[str, int]:
        return {}

    def _new_files(self, exhausted: Set[str]) -> list[str]:
        raw = Folder.at(self.source)
        raw.fs.invalidate_cache()
        paths = matching_files(raw, self.schema.files.patterns)
        sides = side_urls(self.source, self.schema) if self.schema.files.patterns == "auto" else set()
        names = [path.removeprefix(raw.root).lstrip("/") for path in paths if url_of(raw, path) not in sides]
        return [name for name in names if name not in exhausted]

    def _read(self, name: str, start: int) -> Piece:
        try:
            return self._whole(name, start)
        except DataError as damaged:
            # An error of the system (a timeout, too many open files) says nothing about the file.
            if self.schema.malformed == "error" or getattr(damaged.__cause__, "errno", None):
                raise
            return refused(Piece(name, start, start, NO_ROWS, NO_PLACES, (), True), str(damaged))

    def _whole(self, name: str, start: int) -> Piece:
        raw = Folder.at(self.source)
        url = url_of(raw, raw / name)
        read = [
            (chunk.stop, normalise(chunk, self.schema)) for chunk in chunks(url, self.schema, self.source)
        ]
        if not read:
            return Piece(name, start, start, NO_ROWS, NO_PLACES, (), True)
        normal = [each for _, each in read]
        whole = Piece(
            name,
            0,
            read[-1][0],
            pa.concat_tables([each.rows for each in normal]),
            np.concatenate([each.row.to_numpy() for each in normal]),
            tuple(each.rejected for each in normal),
            True,
            notes=sum((each.notes for each in normal), Counter()),
        )
        return behind(whole, start)


def behind(piece: Piece, start: int) -> Piece:
    """What of a piece lies behind a place of its origin."""
    kept_N = piece.place_N > start
    return piece._replace(
        start=start,
        rows=piece.rows.filter(pa.array(kept_N)),
        place_N=piece.place_N[kept_N],
        notes=piece.notes if start <= piece.start else {},  # counted with the rows before
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
    """A piece of which nothing could be read: one row represents it, with the reason."""
    row = {"file": [piece.origin], "row": pa.array([piece.start + 1], pa.int64()), "reason": [reason]}
    return piece._replace(rejected=(pa.table(row),), unread=True)

"""Messages of a partition of a topic as rows: a JSON object or a list of them, or an Arrow IPC stream."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.formats.json_lines import cells, objects, table_of
from diet_ray.log.normalise import normalise
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import Chunk
from diet_ray.log.stream.arrivals import NO_PLACES, NO_ROWS, Piece, behind
from diet_ray.log.stream.config import Coding

MESSAGE_ROWS = 1_000_000  # row r (from 1) of the message with offset o has the place o * MESSAGE_ROWS + r


class Message(NamedTuple):
    offset: int
    value: bytes | None


class Decoded(NamedTuple):
    """The rows of a message that could be read."""

    rows: pa.Table
    place_N: np.ndarray


class Unread(NamedTuple):
    """A message, or a row of one, that could not be read."""

    place: int
    value: bytes | None
    reason: str


Reader = Callable[[bytes, int, LogSchema, list[Unread]], Decoded]


def message_pieces(
    origin: str, start: int, messages: Sequence[Message], coding: Coding, schema: LogSchema
) -> Iterator[Piece]:
    """The rows of messages (in order of offset, one at least) behind place `start`, in one piece if possible.

    A message that cannot be read, or whose values cannot be what the schema says, is set aside whole; where
    the schema does not say `malformed: quarantine`, DataError names it instead.
    """
    try:
        yield behind(_piece(origin, start, messages, coding, schema), start)
    except (DataError, pa.ArrowException, ValueError, TypeError, OverflowError) as wrong:
        if schema.malformed == "error":
            if isinstance(wrong, DataError):
                raise
            raise DataError(f"{origin}, offsets {messages[0].offset} and after: {wrong}") from wrong
        if len(messages) == 1:
            unread = Unread(messages[0].offset * MESSAGE_ROWS + 1, messages[0].value, str(wrong))
            quarantined = (_quarantined(origin, [unread]),)
            yield Piece(origin, start, _stop(messages), NO_ROWS, NO_PLACES, quarantined, False)
            return
        # Read apart, only the one that is wrong is quarantined.
        middle = len(messages) // 2
        yield from message_pieces(origin, start, messages[:middle], coding, schema)
        yield from message_pieces(origin, _stop(messages[:middle]), messages[middle:], coding, schema)


def _stop(messages: Sequence[Message]) -> int:
    """The place behind the last of them."""
    return (messages[-1].offset + 1) * MESSAGE_ROWS


def _piece(origin: str, start: int, messages: Sequence[Message], coding: Coding, schema: LogSchema) -> Piece:
    unread: list[Unread] = []
    read = _read_json if coding == "json" else _read_arrow
    decoded = [_decoded(message, read, schema, unread) for message in messages]
    if unread and schema.malformed == "error":
        raise DataError(
            f"{origin}, offset {unread[0].place // MESSAGE_ROWS} cannot be read: {unread[0].reason}; set "
            "malformed: quarantine in the schema to set such messages aside"
        )
    normal = [normalise(chunk, schema) for chunk in _chunks(origin, decoded)]
    quarantined = [_quarantined(origin, unread)] if unread else []
    return Piece(
        origin,
        start,
        _stop(messages),
        pa.concat_tables([each.rows for each in normal]) if normal else NO_ROWS,
        np.concatenate([each.row.to_numpy() for each in normal]) if normal else NO_PLACES,
        (*quarantined, *(each.rejected for each in normal)),
        False,
        notes=sum((each.notes for each in normal), Counter()),
    )


def _decoded(message: Message, read: Reader, schema: LogSchema, unread: list[Unread]) -> Decoded:
    first = message.offset * MESSAGE_ROWS + 1
    try:
        if message.value is None:
            raise ValueError("it has no value")
        return read(message.value, first, schema, unread)
    except (ValueError, RecursionError, pa.ArrowException) as wrong:
        unread.append(Unread(first, message.value, str(wrong)))
        return Decoded(NO_ROWS, NO_PLACES)


def _check_size(rows: int) -> None:
    if rows >= MESSAGE_ROWS:
        raise ValueError(f"it has {rows:,} rows; at most {MESSAGE_ROWS - 1:,} are taken")


def _read_json(value: bytes, first: int, schema: LogSchema, unread: list[Unread]) -> Decoded:
    """A row that lacks a key, or has a list for a value, does not cost the others of its message."""
    names, rows = schema.columns(), objects(value)
    _check_size(len(rows))
    texts, places = [], []
    for place, row in enumerate(rows, start=first):
        try:
            if lacking := next((name for name in names if name not in row), None):
                raise ValueError(f"it has no key {lacking}; it has {', '.join(row)}")
            texts.append(cells(row, names))
            places.append(place)
        except ValueError as wrong:
            content = value if len(rows) == 1 else json.dumps(row, default=str).encode()
            unread.append(Unread(place, content, str(wrong)))
    return Decoded(table_of(texts, names), np.array(places, np.int64))


def _read_arrow(value: bytes, first: int, schema: LogSchema, unread: list[Unread]) -> Decoded:
    with pa.ipc.open_stream(value) as stream:
        table = stream.read_all()
    table.validate(full=True)
    if missing := [name for name in schema.columns() if name not in table.column_names]:
        raise ValueError(f"it has no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
    _check_size(table.num_rows)
    return Decoded(table.select(schema.columns()), np.arange(first, first + table.num_rows))


def _quarantined(origin: str, unread: list[Unread]) -> pa.Table:
    return pa.table(
        {
            "value": pa.array([each.value for each in unread], pa.binary()),
            "file": [origin] * len(unread),
            "row": pa.array([each.place for each in unread], pa.int64()),
            "reason": [each.reason for each in unread],
        }
    )


def _chunks(origin: str, decoded: Iterable[Decoded]) -> Iterator[Chunk]:
    """Neighbours of one schema become one table: most messages are small."""
    filled = (each for each in decoded if len(each.place_N))
    for _, same in groupby(filled, key=lambda each: each.rows.schema):
        alike = list(same)
        place_N = np.concatenate([each.place_N for each in alike])
        yield Chunk(origin, pa.array(place_N), pa.concat_tables([each.rows for each in alike]))

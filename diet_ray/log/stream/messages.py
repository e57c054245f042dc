"""Messages of a partition of a topic as rows: a JSON object or a list of them, or an Arrow IPC stream."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.encoding import one_table
from diet_ray.log.normalise import normalise
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import Chunk
from diet_ray.log.stream.arrivals import NO_PLACES, NO_ROWS, Piece, behind

Coding = Literal["json", "arrow"]
MESSAGE_ROWS = 1_000_000  # row r (from 1) of the message with offset o has the place o * MESSAGE_ROWS + r

Rows = TypeVar("Rows", list[dict[str, Any]], pa.Table)


class Message(NamedTuple):
    offset: int
    value: bytes | None


class Decoded(NamedTuple, Generic[Rows]):
    offset: int
    rows: Rows


class Unread(NamedTuple):
    message: Message
    reason: str


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
            aside = (_set_aside(origin, [Unread(messages[0], str(wrong))]),)
            yield Piece(origin, start, _stop(messages), NO_ROWS, NO_PLACES, aside, False)
            return
        # One of them is the reason; the others shall not suffer for it.
        middle = len(messages) // 2
        yield from message_pieces(origin, start, messages[:middle], coding, schema)
        yield from message_pieces(origin, _stop(messages[:middle]), messages[middle:], coding, schema)


def _stop(messages: Sequence[Message]) -> int:
    """The place behind the last of them."""
    return (messages[-1].offset + 1) * MESSAGE_ROWS


def _piece(origin: str, start: int, messages: Sequence[Message], coding: Coding, schema: LogSchema) -> Piece:
    unread: list[Unread] = []
    if coding == "json":
        read = _decoded(messages, _json_rows, schema, unread)
        chunks = [_json_chunk(origin, read, schema)] if read else []
    else:
        chunks = list(_arrow_chunks(origin, _decoded(messages, _arrow_rows, schema, unread)))
    if unread and schema.malformed == "error":
        raise DataError(
            f"{origin}, offset {unread[0].message.offset} cannot be read: {unread[0].reason}; set malformed: "
            "quarantine in the schema to set such messages aside"
        )
    normal = [normalise(chunk, schema) for chunk in chunks]
    aside = [_set_aside(origin, unread)] if unread else []
    return Piece(
        origin,
        start,
        _stop(messages),
        one_table([each.rows for each in normal], schema) if normal else NO_ROWS,
        np.concatenate([each.row.to_numpy() for each in normal]) if normal else NO_PLACES,
        (*aside, *(each.rejected for each in normal)),
        False,
    )


def _decoded(
    messages: Iterable[Message],
    read: Callable[[bytes, LogSchema], Rows],
    schema: LogSchema,
    unread: list[Unread],
) -> list[Decoded[Rows]]:
    decoded = []
    for message in messages:
        try:
            if message.value is None:
                raise ValueError("it has no value")
            rows = read(message.value, schema)
            if len(rows) >= MESSAGE_ROWS:
                raise ValueError(f"it has {len(rows):,} rows; at most {MESSAGE_ROWS - 1:,} are taken")
            if len(rows):
                decoded.append(Decoded(message.offset, rows))
        except (ValueError, RecursionError, pa.ArrowException) as wrong:
            unread.append(Unread(message, str(wrong)))
    return decoded


def _places(decoded: Iterable[Decoded[Rows]]) -> pa.Array:
    each = [d.offset * MESSAGE_ROWS + np.arange(1, len(d.rows) + 1, dtype=np.int64) for d in decoded]
    return pa.array(np.concatenate(each))


def _set_aside(origin: str, unread: list[Unread]) -> pa.Table:
    return pa.table(
        {
            "value": pa.array([each.message.value for each in unread], pa.binary()),
            "file": [origin] * len(unread),
            "row": pa.array([each.message.offset * MESSAGE_ROWS + 1 for each in unread], pa.int64()),
            "reason": [each.reason for each in unread],
        }
    )


def _json_rows(value: bytes, schema: LogSchema) -> list[dict[str, Any]]:
    found = json.loads(value)
    rows = found if isinstance(found, list) else [found]
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError("it is neither a JSON object nor a list of them")
        for name in schema.columns():
            if name not in row:
                raise ValueError(f"it has no key {name}; it has {', '.join(row)}")
            if isinstance(row[name], dict | list):
                raise ValueError(f"{name} is not a single value")
    return rows


def _json_chunk(origin: str, decoded: list[Decoded[list[dict[str, Any]]]], schema: LogSchema) -> Chunk:
    rows, ids = [row for each in decoded for row in each.rows], schema.text_columns()
    columns = {
        name: _text([row[name] for row in rows]) if name in ids else _values([row[name] for row in rows])
        for name in schema.columns()
    }
    return Chunk(origin, _places(decoded), pa.table(columns))


def _text(values: list[Any]) -> pa.Array:
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _values(values: list[Any]) -> pa.Array:
    """Numbers where all are; else text, as one bad value makes of a whole CSV column."""
    plain = [int(v) if isinstance(v, bool) else v for v in values]
    whole = all(v is None or isinstance(v, int) for v in plain)  # Arrow cuts fractions without a word
    try:
        return pa.array(plain, pa.int64() if whole else pa.float64())
    except (pa.ArrowException, OverflowError):
        return _text(values)


def _arrow_rows(value: bytes, schema: LogSchema) -> pa.Table:
    with pa.ipc.open_stream(value) as stream:
        table = stream.read_all()
    table.validate(full=True)
    if missing := [name for name in schema.columns() if name not in table.column_names]:
        raise ValueError(f"it has no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
    return table.select(schema.columns())


def _arrow_chunks(origin: str, decoded: list[Decoded[pa.Table]]) -> Iterator[Chunk]:
    """Neighbours of one schema become one table: most messages are small."""
    for _, same in groupby(decoded, key=lambda each: each.rows.schema):
        alike = list(same)
        yield Chunk(origin, _places(alike), pa.concat_tables([each.rows for each in alike]))

"""Delimited text line by line: exact where a block of lines is not regular."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from diet_ray.log.formats.batch import SHOWN, Batch, Unread

csv.field_size_limit(1 << 30)

NOT_CLOSED = (
    "a quotation mark opens a cell that is not closed where it should be; set files.quote to none where "
    "quotation marks mean nothing, or to '\"' where cells hold line breaks"
)


class Dialect(NamedTuple):
    """How a file of delimited text is written."""

    separator: str
    quote: str | None
    line_breaks: bool  # whether a quoted cell may hold some
    any_lines: bool  # even where they look like rows of their own

    def split(self, line: str) -> list[str]:
        """The cells of one line; ValueError where its quotation marks do not close."""
        if self.quote is None or self.quote not in line:
            return line.split(self.separator)
        try:
            return next(csv.reader([line], delimiter=self.separator, quotechar=self.quote, strict=True))
        except csv.Error as wrong:
            raise ValueError(NOT_CLOSED) from wrong

    def record(self, lines: list[str], first: int, width: int) -> tuple[list[str], int]:
        """The cells that begin on a line, and on how many lines they stand.

        Raises EOFError where the lines end within a cell, ValueError where a quotation mark does not close.
        """
        if not self.line_breaks:
            return self.split(lines[first].rstrip("\r\n")), 1
        stopped = False

        def following() -> Iterator[str]:
            nonlocal stopped
            yield lines[first]
            for number in range(first + 1, len(lines)):
                if not self.any_lines and lines[number].count(self.separator) >= width - 1:
                    stopped = True
                    return
                yield lines[number]

        reader = csv.reader(following(), delimiter=self.separator, quotechar=self.quote, strict=True)
        try:
            return next(reader), reader.line_num
        except csv.Error as wrong:
            if "end of data" in str(wrong) and not stopped:
                raise EOFError from wrong
            raise ValueError(NOT_CLOSED) from wrong


def irregular_batch(
    block: bytes, dialect: Dialect, *, width: int, index: Mapping[str, int], row: int, last: bool
) -> tuple[Batch, bytes]:
    """The rows of a block after number `row`, and what of it is to be read with the next block.

    width: columns of the file. index: place of each wanted column. last: nothing follows the block.
    """
    lines = io.StringIO(block.decode("utf-8", "surrogateescape"), newline="").readlines()
    records: list[list[str]] = []
    row_N: list[int] = []
    unread: list[Unread] = []
    place = 0
    while place < len(lines):
        line = lines[place].rstrip("\r\n")
        if not line:
            place += 1
            continue
        record: list[str] = []
        count, reason = 1, ""
        try:
            record, count = _record(dialect, lines, place, width)
            if len(record) != width:
                reason = f"it has {len(record)} columns instead of {width}"
        except EOFError:
            if not last:
                break
            reason = NOT_CLOSED
        except ValueError as wrong:
            reason = str(wrong)
        place, row = place + count, row + 1
        if reason:
            unread.append(Unread(row, line[:SHOWN].encode("utf-8", "replace").decode(), reason))
        else:
            records.append(record)
            row_N.append(row)
    columns = {name: _column([record[number] for record in records]) for name, number in index.items()}
    rest = "".join(lines[place:]).encode("utf-8", "surrogateescape")
    return Batch(pa.table(columns), np.array(row_N, np.int64), row, tuple(unread)), rest


def _record(dialect: Dialect, lines: list[str], place: int, width: int) -> tuple[list[str], int]:
    if dialect.quote is None or dialect.quote not in lines[place]:
        return lines[place].rstrip("\r\n").split(dialect.separator), 1
    return dialect.record(lines, place, width)


def _column(cells: list[str]) -> pa.Array:
    try:
        return pa.array([cell or None for cell in cells], pa.string())
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return pa.array([cell.encode("utf-8", "surrogateescape") or None for cell in cells], pa.binary())

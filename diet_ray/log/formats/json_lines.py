"""JSON, an object or a list of objects per line; each value as text, numbers exactly."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.formats.batch import SHOWN, Batch, BatchIterator, Unread
from diet_ray.log.values.ids import json_text

BLOCK_BYTES = 16 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Row = dict[str, Any]


def objects(content: bytes | str) -> list[Row]:
    """The object of a JSON text or those of a list, fractions as Decimal; ValueError where it is neither."""
    try:
        value = json.loads(content, parse_float=Decimal)
    except ArithmeticError as wrong:  # an exponent of more than 18 digits
        raise ValueError("a number in it is too large") from wrong
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is neither a JSON object nor a list of them")
    return rows


def cells(row: Row, names: Sequence[str]) -> list[str | None]:
    """The values of a row as text, None where absent; ValueError names one that is not a single value."""
    texts = []
    for name in names:
        try:
            texts.append(json_text(row.get(name)))
        except ValueError as nested:
            raise ValueError(f"{name} is {nested}") from nested
        if texts[-1] is not None and not _is_unicode(texts[-1]):
            raise ValueError(f"{name} is not UTF-8 text")
    return texts


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON may hold half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def table_of(texts: Sequence[Sequence[str | None]], names: Sequence[str]) -> pa.Table:
    columns = list(zip(*texts, strict=True)) or [()] * len(names)
    return pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)}
    )


class JsonLines:
    """An open file of JSON lines (formats.batch.TableFile); `columns` are the keys of its beginning."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file, self.path, self.rest = file, path, b""
        block = self._block().removeprefix(BYTE_ORDER_MARK)
        if block.lstrip().startswith(b"[") and not block.split(b"\n", 1)[0].rstrip().endswith(b"]"):
            # One list on many lines can only be read as a whole.
            block, self.rest = b" ".join((block + self.rest + file.read()).splitlines()), b""
        self.first = list(_entries(block, 0))
        self.columns = list(
            dict.fromkeys(key for _, row in self.first if isinstance(row, dict) for key in row)
        )

    def batches(self, wanted: Sequence[str]) -> BatchIterator:
        """DataError where no row of the file has one of the keys."""
        absent, row, entries = set(wanted), 0, self.first
        while True:
            texts: list[list[str | None]] = []
            numbers: list[int] = []
            unread: list[Unread] = []
            for row, entry in entries:
                if isinstance(entry, Unread):
                    unread.append(entry)
                    continue
                absent -= entry.keys()
                try:
                    texts.append(cells(entry, wanted))
                    numbers.append(row)
                except ValueError as wrong:
                    unread.append(Unread(row, json.dumps(entry, default=str)[:SHOWN], str(wrong)))
            if entries:
                yield Batch(table_of(texts, wanted), np.array(numbers, np.int64), row, tuple(unread))
            if not (block := self._block()):
                break
            entries = list(_entries(block, row))
        if absent and row:
            raise DataError(f"{self.path}: no row has the key {', '.join(sorted(absent))}")

    def _block(self) -> bytes:
        """Whole lines, about BLOCK_BYTES of them; none at the end of the file."""
        parts = [self.rest]
        while content := self.file.read(BLOCK_BYTES):
            parts.append(content)
            if b"\n" in content:
                break
        whole = b"".join(parts)
        cut = whole.rfind(b"\n") + 1 if content else len(whole)
        self.rest = whole[cut:]
        return whole[:cut]


def _entries(block: bytes, row: int) -> Iterator[tuple[int, Row | Unread]]:
    """The rows of a block after number `row`, each with its number; an unreadable line is one row."""
    for line in block.split(b"\n"):
        if not line.strip():
            continue
        text = line.decode("utf-8", "surrogateescape")
        try:
            for entry in objects(text):
                row += 1
                yield row, entry
        except (ValueError, RecursionError) as wrong:
            row += 1
            yield row, Unread(row, line[:SHOWN].decode("utf-8", "replace"), f"it is not JSON: {wrong}")

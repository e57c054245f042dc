"""CSV and its relations: every cell as text, no type guessed, an irregular line costing itself only.

Blocks of regular lines are parsed by Arrow; one that has a line with another number of columns, a stray
quotation mark or a cell of several lines is parsed line by line (formats.lines).
"""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from diet_ray.errors import DataError
from diet_ray.log.declaration import FilesConfig
from diet_ray.log.formats.batch import Batch, BatchIterator, without_headers
from diet_ray.log.formats.lines import Dialect, irregular_batch
from diet_ray.log.values.columns import plain

BLOCK_BYTES = 32 << 20
LONGEST_LINE = 256 << 20  # bytes
UNIT_SEPARATOR = b"\x1f"  # replaces a separator of several bytes in blocks without it
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Delimited:
    """An open file of delimited text (formats.batch.TableFile)."""

    def __init__(self, file: BinaryIO, path: str, config: FilesConfig, *, tabs: bool) -> None:
        """tabs: what separates cells where the schema does not say. DataError where the header is missing."""
        self.file, self.path = file, path
        self.dialect = dialect_of(config, tabs=tabs)
        self.ended = False
        self.rest = file.read(BLOCK_BYTES).removeprefix(BYTE_ORDER_MARK)
        if self.rest[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path} is UTF-16; save it as UTF-8")
        self.columns = list(config.columns) if config.columns else self._header()

    def _header(self) -> list[str]:
        block, self.ended = self._block(1)
        head = block.lstrip(b"\r\n")
        if not head:
            raise DataError(f"{self.path} is empty: it has no header")
        line = head.split(b"\n", 1)[0].splitlines()[0]
        self.rest = head[len(line) :] + self.rest
        try:
            return self.dialect.split(line.decode("utf-8", "replace").rstrip("\r"))
        except ValueError as wrong:
            raise DataError(f"{self.path}, header: {wrong}") from wrong

    def batches(self, wanted: Sequence[str]) -> BatchIterator:
        index = {name: self.columns.index(name) for name in wanted}
        width, row, unfinished = len(self.columns), 0, b""
        while True:
            self.rest = unfinished + self.rest
            block, last = self._block(len(unfinished) + BLOCK_BYTES)
            if not block:
                return
            batch = regular_batch(block, self.dialect, width=width, index=index, row=row)
            unfinished = b""
            if batch is None:
                last = last or len(block) > LONGEST_LINE
                batch, unfinished = irregular_batch(
                    block, self.dialect, width=width, index=index, row=row, last=last
                )
            row = batch.stop
            yield without_headers(batch)

    def _block(self, size: int) -> tuple[bytes, bool]:
        """Whole lines of `size` bytes or a little more, and whether they end the file."""
        parts, length = [self.rest], len(self.rest)
        while not self.ended and (length < size or b"\n" not in parts[-1]):
            if length > LONGEST_LINE + size:
                raise DataError(f"{self.path} has a line of more than {LONGEST_LINE >> 20} MiB; it is no log")
            parts.append(self.file.read(BLOCK_BYTES))
            length += len(parts[-1])
            self.ended = not parts[-1]
        whole = b"".join(parts)
        cut = len(whole) if self.ended else whole.rfind(b"\n") + 1
        self.rest = whole[cut:]
        return whole[:cut], self.ended


def dialect_of(config: FilesConfig, *, tabs: bool) -> Dialect:
    separator = config.separator if config.separator != "auto" else "\t" if tabs else ","
    if config.quote != "auto":
        quote = None if config.quote == "none" else config.quote
        return Dialect(separator, quote, line_breaks=True, any_lines=True)
    # No program that writes several characters between cells encloses them.
    quote = '"' if len(separator.encode()) == 1 else None
    return Dialect(separator, quote, line_breaks=separator != "\t", any_lines=False)


def regular_batch(
    block: bytes, dialect: Dialect, *, width: int, index: dict[str, int], row: int
) -> Batch | None:
    """The rows of a block after number `row`; None where the block has to be read line by line."""
    separator = dialect.separator.encode()
    if len(separator) > 1:
        if UNIT_SEPARATOR in block:
            return None
        block, separator = block.replace(separator, UNIT_SEPARATOR), UNIT_SEPARATOR
    if dialect.quote is not None and not _quoted_regularly(block, dialect.quote.encode(), separator):
        return None
    names = [str(number) for number in range(width)]
    wanted = [names[number] for number in index.values()]
    try:
        table = pc.read_csv(
            pa.BufferReader(block),
            pc.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
            pc.ParseOptions(delimiter=separator.decode(), quote_char=dialect.quote or False),
            pc.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.binary()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    columns = {name: plain(table[names[number]]) for name, number in index.items()}
    row_N = np.arange(row + 1, row + 1 + table.num_rows)
    return Batch(pa.table(columns), row_N, row + table.num_rows)


def _quoted_regularly(block: bytes, quote: bytes, separator: bytes) -> bool:
    """Whether each quotation mark begins or ends a cell or is doubled, and no cell has a line break."""
    byte_N = np.frombuffer(block, np.uint8)
    quote_N = np.flatnonzero(byte_N == quote[0])
    if not len(quote_N):
        return True
    if len(quote_N) % 2:
        return False
    is_end = np.zeros(256, bool)
    is_end[np.frombuffer(separator + quote + b"\r\n", np.uint8)] = True
    opening, closing = quote_N[0::2], quote_N[1::2]
    begins = is_end[byte_N[opening - 1]] | (opening == 0)
    ends = is_end[byte_N[(closing + 1) % len(byte_N)]] | (closing == len(byte_N) - 1)
    if not (begins.all() and ends.all()):
        return False
    line_N = np.flatnonzero((byte_N == 10) | (byte_N == 13))
    return not (np.searchsorted(quote_N, line_N) % 2).any()

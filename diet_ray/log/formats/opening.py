"""A file of any format, opened: by what it holds where that shows, else by the ending of its name."""

import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa

from diet_ray.errors import DataError
from diet_ray.log.declaration import FilesConfig
from diet_ray.log.formats.batch import TableFile
from diet_ray.log.formats.columnar import ArrowFile, Orc, Parquet
from diet_ray.log.formats.delimited import Delimited
from diet_ray.log.formats.json_lines import JsonLines
from diet_ray.storage import Folder

DAMAGED = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error, lzma.LZMAError)
MAGIC = {b"PAR1": Parquet, b"ORC": Orc, b"ARROW1": ArrowFile}
ENDINGS = {
    ".parquet": Parquet,
    ".pq": Parquet,
    ".parq": Parquet,
    ".orc": Orc,
    ".arrow": ArrowFile,
    ".feather": ArrowFile,
}
TEXT_ENDINGS = (".csv",)
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
TAB_ENDINGS = (".tsv", ".tab")
# Compression by ending -> what fsspec or Arrow calls it, and how such content begins.
COMPRESSION = {
    ".gz": ("gzip", b"\x1f\x8b"),
    ".bz2": ("bz2", b"BZh"),
    ".xz": ("xz", b"\xfd7zXZ\x00"),
    ".zst": ("zstd", b"\x28\xb5\x2f\xfd"),
}


def text_ending(name: str) -> str:
    """The ending of a file's name in lower case, that of a compression left out."""
    name = name.lower()
    for ending in COMPRESSION:
        name = name.removesuffix(ending)
    return "." + name.rsplit(".", 1)[-1] if "." in name else ""


@contextmanager
def open_table(path: str, config: FilesConfig) -> Iterator[TableFile]:
    """The open file; DataError names one that is missing, damaged or of no format that can be read."""
    folder = Folder.at(path)
    try:
        with folder.fs.open(folder.root, "rb") as raw:
            yield _reader(raw, path, config)
    except DAMAGED as broken:
        raise damaged(path, broken) from broken


def damaged(path: str, broken: Exception, row: int = 0) -> DataError:
    """What to say of a file that broke after a row, in one line."""
    after = f" after row {row}" if row else ""
    return DataError(f"{path} cannot be read{after}: {' '.join(str(broken).split())}")


def _reader(raw: Any, path: str, config: FilesConfig) -> TableFile:
    start = raw.read(8)
    raw.seek(0)
    file, ending = raw, text_ending(path)
    if (compression := _compression(path.lower(), start)) is not None:
        file = io.BufferedReader(_decompressed(raw, compression))
        start = file.peek(8)[:8]
    is_text = ending in (*TEXT_ENDINGS, *TAB_ENDINGS, *JSON_ENDINGS)
    for magic, kind in MAGIC.items():
        # A header may well begin with ORC.
        if ENDINGS.get(ending) is kind or (start.startswith(magic) and (not is_text or kind is Parquet)):
            return kind(file if file is raw else io.BytesIO(file.read()), path)
    if ending in JSON_ENDINGS or (not is_text and start.lstrip().startswith(b"{")):
        return JsonLines(file, path)
    return Delimited(file, path, config, tabs=ending in TAB_ENDINGS)


def _compression(name: str, start: bytes) -> str | None:
    for ending, (kind, magic) in COMPRESSION.items():
        if name.endswith(ending) or start.startswith(magic):
            return kind
    return None


def _decompressed(raw: Any, compression: str) -> Any:
    if compression == "zstd":
        return pa.CompressedInputStream(raw, compression)
    return fsspec.compression.compr[compression](raw, mode="r")

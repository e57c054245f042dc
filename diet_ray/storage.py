"""Files on any file system fsspec reaches: published whole or not at all, named by size and checksum."""

import hashlib
import io
import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from diet_ray.errors import DataError


class Folder(NamedTuple):
    """A directory on some file system; `folder / "a/b"` is a path string below it."""

    fs: fsspec.AbstractFileSystem
    root: str

    @classmethod
    def at(cls, url: str) -> "Folder":
        """Open `url` (a local path or an fsspec URL such as s3://bucket/run); nothing is created."""
        fs, root = fsspec.core.url_to_fs(str(url))
        return cls(fs, root.rstrip("/"))

    def __truediv__(self, relative: str) -> str:
        parts = PurePosixPath(relative).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise DataError(f"path {relative!r} leads outside {self.root}")
        return f"{self.root}/{relative}"

    def exists(self, relative: str) -> bool:
        return bool(self.fs.exists(self / relative))

    def write(self, relative: str, content: bytes) -> "FileStamp":
        """Publish `content` atomically: readers see the old file or the whole new one."""
        path = self / relative
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        # Object stores publish a put atomically; a local file needs the rename.
        staged = f"{path}.{uuid.uuid4().hex}.tmp"
        with self.fs.open(staged, "wb") as file:
            file.write(content)
        self.fs.mv(staged, path)
        return FileStamp.of(relative, content)

    def create(self, relative: str, content: bytes) -> "FileStamp":
        """`write`, but FileExistsError where there is such a file: of two writers one wins."""
        path = self / relative
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(path, content, mode="create")
            return FileStamp.of(relative, content)
        staged = f"{path}.{uuid.uuid4().hex}.tmp"
        Path(staged).write_bytes(content)
        try:
            os.link(staged, path)
        finally:
            os.unlink(staged)
        return FileStamp.of(relative, content)

    def read(self, relative: str) -> bytes:
        """Return the file's bytes; DataError names a file that is not there."""
        try:
            return bytes(self.fs.cat_file(self / relative))
        except FileNotFoundError as missing:
            raise DataError(f"{self / relative} does not exist") from missing

    def write_parquet(self, relative: str, table: pa.Table) -> "FileStamp":
        buffer = io.BytesIO()
        pq.write_table(table, buffer, write_page_checksum=True)
        return self.write(relative, buffer.getvalue())

    def read_parquet(self, relative: str, columns: list[str] | None = None) -> pa.Table:
        """Return the whole table; DataError names a file that is missing or damaged."""
        try:
            content = io.BytesIO(self.read(relative))
            return pq.read_table(content, columns=columns, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as broken:
            raise DataError(f"{self / relative} is damaged: {broken}") from broken

    def read_json(self, relative: str) -> Any:
        try:
            return json.loads(self.read(relative))
        except (ValueError, RecursionError) as broken:
            raise DataError(f"{self / relative} is not valid JSON: {broken}") from broken

    def write_json(self, relative: str, value: Any) -> "FileStamp":
        """`write` of JSON that any reader takes: a number that is NaN or infinite becomes null."""
        text = json.dumps(_finite(value), indent=1, sort_keys=True, allow_nan=False)
        return self.write(relative, (text + "\n").encode())


def _finite(value: Any) -> Any:
    """`value` with None in place of every float that JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def absolute(url: str) -> str:
    """The same place whatever the working directory: processes of a cluster do not share one."""
    fs, root = fsspec.core.url_to_fs(str(url))
    return str(root) if isinstance(fs, LocalFileSystem) else str(url)


class FileStamp(NamedTuple):
    """What a record says of a file it names."""

    path: str  # relative to the folder that holds the record
    size: int  # bytes
    sha256: str

    @classmethod
    def of(cls, path: str, content: bytes) -> "FileStamp":
        return cls(path, len(content), hashlib.sha256(content).hexdigest())

    def verified(self, folder: Folder) -> bytes:
        """Return the file's content; DataError where it is missing, cut short or changed."""
        content = folder.read(self.path)
        if len(content) != self.size:
            raise DataError(f"{folder / self.path} has {len(content)} bytes, its record says {self.size}")
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(f"{folder / self.path} does not match the checksum in its record")
        return content

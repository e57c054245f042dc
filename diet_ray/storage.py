"""Files on any file system fsspec reaches: published whole or not at all, named by size and checksum."""

import errno
import hashlib
import io
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from diet_ray.errors import ConfigError, DataError

# Scheme of a URL -> the extra of this package that installs its driver.
EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
# Stores in which a put is atomic, and a rename is a copy and a deletion.
OBJECT_STORES = {*EXTRAS, "memory", "oss", "r2"}
DIGEST_BYTES = 1 << 20


class Folder(NamedTuple):
    """A directory on some file system; `folder / "a/b"` is a path string below it."""

    fs: fsspec.AbstractFileSystem
    root: str

    @classmethod
    def at(cls, url: str) -> "Folder":
        """Open `url` (a local path or an fsspec URL such as s3://bucket/run); nothing is created.

        Raises ConfigError where no driver for the URL is installed.
        """
        fs, root = file_system(url)
        return cls(fs, root.rstrip("/"))

    def __truediv__(self, relative: str) -> str:
        parts = PurePosixPath(relative).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise DataError(f"path {relative!r} leads outside {self.root}")
        return f"{self.root}/{relative}"

    def exists(self, relative: str) -> bool:
        return bool(self.fs.exists(self / relative))

    def write(self, relative: str, content: bytes) -> "FileStamp":
        """Publish `content` atomically: readers see the old file or the whole new one.

        Raises OSError with the path of the file where it cannot be written.
        """
        path = self / relative
        try:
            if _is_object_store(self.fs):
                self.fs.pipe_file(path, content)
            else:
                with self.writing(relative) as file:
                    file.write(content)
        except OSError as failed:
            raise _at_path(failed, path) from failed
        return FileStamp.of(relative, content)

    def _rename(self, staged: str, path: str) -> None:
        if isinstance(self.fs, LocalFileSystem):
            os.replace(staged, path)  # fsspec's mv would move the file into a folder of that name
        else:
            self.fs.mv(staged, path)

    @contextmanager
    def writing(self, relative: str) -> Iterator[IO[bytes]]:
        """A file to write piece by piece, published whole at the end, or not at all after an exception."""
        path = self / relative
        if _is_object_store(self.fs):
            with tempfile.NamedTemporaryFile() as local:
                yield local
                local.flush()
                self.fs.put_file(local.name, path)
            return
        self._make_parent(path)
        staged = _staged(path)
        try:
            with self.fs.open(staged, "wb") as file:
                yield file
            self._rename(staged, path)
        except BaseException:
            with suppress(OSError):
                self.fs.rm(staged)
            raise

    def _make_parent(self, path: str) -> None:
        parent = path.rsplit("/", 1)[0]
        try:
            self.fs.makedirs(parent, exist_ok=True)
        except FileExistsError as file:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), parent) from file

    def create(self, relative: str, content: bytes) -> "FileStamp":
        """`write`, but FileExistsError where there is such a file: of two writers one wins."""
        path = self / relative
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(path, content, mode="create")
            return FileStamp.of(relative, content)
        staged = _staged(path)
        try:
            self._make_parent(path)
            Path(staged).write_bytes(content)
            os.link(staged, path)
        except OSError as failed:
            raise _at_path(failed, path) from failed
        finally:
            with suppress(OSError):
                os.unlink(staged)
        return FileStamp.of(relative, content)

    def check_writable(self) -> None:
        """Create the folder; OSError naming it where nothing can be written there.

        On object stores nothing is created, and the first write shows what is allowed.
        """
        if _is_object_store(self.fs):
            return
        try:
            self.write(".writable", b"")
            self.fs.rm(self / ".writable")
        except OSError as failed:
            raise _at_path(failed, self.root) from failed

    def read(self, relative: str) -> bytes:
        """Return the file's bytes; DataError where it is not there, OSError where it cannot be read."""
        path = self / relative
        try:
            return bytes(self.fs.cat_file(path))
        except FileNotFoundError as missing:
            raise DataError(f"{path} does not exist") from missing
        except OSError as failed:
            raise _at_path(failed, path) from failed

    def write_parquet(self, relative: str, table: pa.Table, *, transient: bool = False) -> "FileStamp":
        """transient: for a file that is read once and removed, written in half the time."""
        buffer = io.BytesIO()
        quick = {"compression": "lz4", "write_statistics": False} if transient else {}
        pq.write_table(table, buffer, write_page_checksum=True, **quick)
        return self.write(relative, buffer.getvalue())

    def read_parquet(
        self, relative: str, columns: list[str] | None = None, dictionaries: Sequence[str] | None = None
    ) -> pa.Table:
        """Return the whole table; DataError names a file that is missing or damaged.

        dictionaries: columns of text that are returned as dictionaries, as the file stores them.
        """
        content = arrow_file(self.read(relative))
        options = {"columns": columns, "read_dictionary": dictionaries, "page_checksum_verification": True}
        try:
            return pq.read_table(content, **options)
        except (pa.ArrowException, OSError) as broken:
            raise DataError(f"{self / relative} is damaged: {broken}") from broken

    def read_json(self, relative: str) -> Any:
        try:
            return json.loads(self.read(relative))
        except (ValueError, RecursionError) as broken:
            raise DataError(f"{self / relative} is not valid JSON: {broken}") from broken

    def write_json(self, relative: str, value: Any) -> "FileStamp":
        """`write` of JSON that any reader takes: a number that is NaN or infinite becomes null."""
        text = json.dumps(_finite(value), indent=1, allow_nan=False)
        return self.write(relative, (text + "\n").encode())

    def digest(self, relative: str) -> "FileStamp":
        """Size and checksum of a file of any size, read piece by piece."""
        path, size, hashed = self / relative, 0, hashlib.sha256()
        try:
            with self.fs.open(path, "rb") as file:
                while content := file.read(DIGEST_BYTES):
                    size += len(content)
                    hashed.update(content)
        except OSError as failed:
            raise _at_path(failed, path) from failed
        return FileStamp(relative, size, hashed.hexdigest())


def file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL and the path there; ConfigError where no driver for it is installed."""
    scheme = str(url).split("://")[0]
    try:
        fs, path = fsspec.core.url_to_fs(str(url))
    except ImportError as missing:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'diet-ray[{extra}]'" if extra else str(missing)
        raise ConfigError(f"{url}: the driver for {scheme}:// is not installed: {how}") from missing
    except ValueError as unknown:
        known = "a local path, s3://, gs://, abfs:// or another scheme of fsspec"
        raise ConfigError(f"{url}: there is no storage {scheme}://; use {known}") from unknown
    except OSError as refused:
        reason = str(refused).partition("\n")[0]
        raise ConfigError(f"{url}: the driver for {scheme}:// cannot be loaded: {reason}") from refused
    return fs, str(path)


def arrow_file(content: bytes) -> pa.BufferReader:
    """A file of Arrow's own memory, to read a whole table from.

    Threads of Arrow clean up after the table was returned. To close a file of Python's they need the
    interpreter, and where that has ended by then the process aborts at its exit (apache/arrow 34314, 50482).
    """
    sink = pa.BufferOutputStream()
    sink.write(content)
    return pa.BufferReader(sink.getvalue())


def _finite(value: Any) -> Any:
    """`value` with None in place of every float that JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def absolute(url: str) -> str:
    """The same place whatever the working directory: processes of a cluster do not share one."""
    fs, root = file_system(url)
    return root if isinstance(fs, LocalFileSystem) else str(url)


def file_at(url: str, default: str) -> tuple[Folder, str]:
    """Folder and name of a file to write; `default` is its name where `url` is a folder."""
    fs, path = file_system(url)
    if str(url).endswith("/") or fs.isdir(path):
        return Folder(fs, path.rstrip("/")), default
    place, _, name = path.rpartition("/")
    return Folder(fs, place), name


def is_below(url: str, other: str) -> bool:
    """Whether `url` is `other` or lies below it, links resolved."""
    (fs, inner), (other_fs, outer) = file_system(url), file_system(other)
    if fs is not other_fs:
        return False
    if isinstance(fs, LocalFileSystem):
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def _is_object_store(fs: fsspec.AbstractFileSystem) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return not OBJECT_STORES.isdisjoint(protocols)


def _staged(path: str) -> str:
    return f"{path}.{uuid.uuid4().hex}.tmp"


def _at_path(failed: OSError, path: str) -> OSError:
    """The error with the path that its reader knows; a full disk names none, a rename two."""
    if failed.errno is None:
        return OSError(f"{path}: {failed}")
    return OSError(failed.errno, failed.strerror, path)  # of the same class, by errno


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

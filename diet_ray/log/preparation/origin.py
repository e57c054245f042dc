"""Which files a log is prepared from, and whether they have changed since."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from diet_ray.errors import DataError
from diet_ray.log.dataset import MANIFEST
from diet_ray.log.files import ignored_files, log_files, matching_files, side_folder, url_of
from diet_ray.log.schema import LogSchema, parse_schema
from diet_ray.storage import FileStamp, Folder, file_at, is_below
from diet_ray.strict import differences

SOURCES = "sources.json"
READERS = 8  # threads that compute checksums


def raw_files(schema: LogSchema, source: str, out: str | None = None) -> list[str]:
    """Files of the log in order of name, without those of logs that were prepared below `source`.

    Raises DataError where no file is left, or `out` is the source itself.
    """
    if out is not None and is_below(source, out) and is_below(out, source):
        raise DataError(f"{source} is the log itself: choose another directory for the prepared log")
    paths, prepared = log_files(source, schema), _prepared_logs(source, out)
    raw = [path for path in paths if not _is_within(path, prepared)]
    if not raw:
        raise DataError(f"{source} holds no raw log: its files are those of the prepared log {prepared[0]}")
    return raw


def raw_bytes(schema: LogSchema, source: str, out: str | None = None) -> int:
    """Bytes of the log's files, as they lie there: compressed where they are."""
    files = [file_at(path, "") for path in raw_files(schema, source, out)]
    return sum(folder.fs.size(folder / name) for folder, name in files)


def unread_files(schema: LogSchema, source: str, out: str | None = None) -> list[str]:
    """Names of visible files below the source that are not read; none where the source is gone."""
    folder = Folder.at(source)
    if not folder.fs.exists(folder.root):
        return []
    prepared = _prepared_logs(source, out)
    names = ignored_files(source, schema)
    return [name for name in names if not _is_within(url_of(folder, folder / name), prepared)]


def side_files(schema: LogSchema, source: str) -> list[str]:
    """Files of the side tables that the schema joins."""
    folder = side_folder(source)
    patterns = [(side.files,) for side in schema.join]
    paths = [path for pattern in patterns for path in matching_files(folder, pattern)]
    return [url_of(folder, path) for path in dict.fromkeys(paths)]


def source_name(source: str, path: str) -> str:
    """The name of a source file relative to the source."""
    root, plain = Folder.at(source).root, Folder.at(path).root
    return plain.removeprefix(root).lstrip("/") or plain.rsplit("/", 1)[-1]


def digest(path: str) -> FileStamp:
    """Size and checksum of a source file."""
    folder, name = file_at(path, "")
    return folder.digest(name)


def plain_record(source: str, paths: list[str], stamps: list[FileStamp]) -> dict[str, Any]:
    """What sources.json holds: size and checksum of each file by its name below `source`."""
    return {
        source_name(source, path): {"size": stamp.size, "sha256": stamp.sha256}
        for path, stamp in zip(paths, stamps, strict=True)
    }


def changed_files(recorded: dict[str, Any], schema: LogSchema, source: str, out: str) -> list[str]:
    """Names of the files of `source` that are new, gone or changed against sources.json.

    Version 0.1 recorded the size alone, and that of the log's own files only.
    """
    sizes_only = any(isinstance(stamp, int) for stamp in recorded.values())
    paths = raw_files(schema, source, out) + ([] if sizes_only else side_files(schema, source))
    now = {source_name(source, path): path for path in paths}
    if differing := sorted(now.keys() ^ recorded.keys()):
        return differing
    with ThreadPoolExecutor(READERS) as threads:
        same = dict(zip(now, threads.map(lambda name: _same(recorded[name], now[name]), now), strict=True))
    return sorted(name for name, unchanged in same.items() if not unchanged)


def check_same_log(folder: Folder, schema: LogSchema, source: str) -> None:
    """DataError where the log in `folder` is of another schema, or the files of `source` have changed since.

    A source that is gone is no fault: the prepared log does not need it any more.
    """
    stored = parse_schema(folder.read_json(MANIFEST)["schema"], "prepared")
    if stored != schema:
        keys = differences(stored.plain(), schema.plain(), owner="log")
        raise DataError(
            f"{folder.root} holds a log prepared with another schema ({keys}); choose another directory"
        )
    raw = Folder.at(source)
    if not raw.fs.exists(raw.root):
        return
    changed = changed_files(folder.read_json(SOURCES), schema, source, folder.root)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise DataError(
            f"{source} has changed since {folder.root} was prepared from it ({changed[0]}{more}): choose "
            "another directory, or remove this one to prepare the log anew"
        )


def _same(recorded: Any, path: str) -> bool:
    folder, name = file_at(path, "")
    size = folder.fs.size(folder / name)
    if isinstance(recorded, int):
        return bool(size == recorded)
    return bool(size == recorded["size"]) and folder.digest(name).sha256 == recorded["sha256"]


def _prepared_logs(source: str, out: str | None) -> list[str]:
    """Directories below the source that hold a prepared log, or will."""
    folder = Folder.at(source)
    own = [out] if out is not None and is_below(out, source) else []
    if folder.fs.isfile(folder.root):
        return own
    manifests = [path for path in folder.fs.find(folder.root) if path.rsplit("/", 1)[-1] == MANIFEST]
    return own + [url_of(folder, path.rsplit("/", 1)[0]) for path in sorted(manifests)]


def _is_within(path: str, directories: list[str]) -> bool:
    return any(is_below(path, directory) for directory in directories)

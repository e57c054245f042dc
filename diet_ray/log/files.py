"""The files of a log: which below its source hold rows, which are left out, and what their paths say."""

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import unquote

from fsspec.implementations.local import LocalFileSystem

from diet_ray.errors import DataError
from diet_ray.log.formats.opening import ENDINGS, JSON_ENDINGS, TAB_ENDINGS, TEXT_ENDINGS, text_ending
from diet_ray.log.schema import LogSchema
from diet_ray.storage import Folder

Patterns = Literal["auto"] | tuple[str, ...]
LINES = JSON_ENDINGS[:2]
READABLE = (*ENDINGS, *TEXT_ENDINGS, *TAB_ENDINGS, *LINES)
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def log_files(source: str, schema: LogSchema) -> list[str]:
    """URLs of the files that hold the rows of a log, in order of name; DataError where there is none."""
    urls = source_files(source, schema.files.patterns)
    if schema.files.patterns == "auto":
        sides = side_urls(source, schema)
        urls = [url for url in urls if url not in sides]
    if not urls:
        raise DataError(f"{source} holds side tables only: {', '.join(side.files for side in schema.join)}")
    return urls


def side_urls(source: str, schema: LogSchema) -> set[str]:
    """The files of all side tables."""
    folder = side_folder(source)
    return {url_of(folder, path) for side in schema.join for path in matching_files(folder, (side.files,))}


def side_folder(source: str) -> Folder:
    """Where the side tables of a source lie: in it, or beside it where it is one file."""
    folder = Folder.at(source)
    return Folder(folder.fs, folder.root.rpartition("/")[0]) if folder.fs.isfile(folder.root) else folder


def source_files(source: str, patterns: Patterns) -> list[str]:
    """URLs of files below `source` (or of itself) in order of name; DataError where there is none."""
    folder = Folder.at(source)
    if folder.fs.isfile(folder.root):
        return [source]
    matching = matching_files(folder, patterns)
    if not matching:
        wanted = ", ".join(f"*{ending}" for ending in READABLE) if patterns == "auto" else ", ".join(patterns)
        raise DataError(f"no file at {source} matches {wanted}{_others(folder)}")
    return [url_of(folder, path) for path in matching]


def url_of(folder: Folder, path: str) -> str:
    """A path of a folder's file system as a URL; a local one as it is."""
    return path if isinstance(folder.fs, LocalFileSystem) else str(folder.fs.unstrip_protocol(path))


def _others(folder: Folder) -> str:
    names = [name for name, _ in _visible(folder)]
    return f"; it holds {names[0]}" + (f" and {len(names) - 1} more" * (len(names) > 1)) if names else ""


def ignored_files(source: str, schema: LogSchema) -> list[str]:
    """Names below `source` of files that are neither read nor hidden nor a side table."""
    folder = Folder.at(source)
    if folder.fs.isfile(folder.root):
        return []
    read = {*source_files(source, schema.files.patterns)}
    read |= side_urls(source, schema)
    return [name for name, path in _visible(folder) if url_of(folder, path) not in read]


def matching_files(folder: Folder, patterns: Patterns) -> list[str]:
    """Paths below a folder in order of name, without hidden and unfinished ones; a linked file once."""
    visible = _once(folder, _visible(folder))
    if patterns != "auto":
        return [path for name, path in visible if any(_matches(name, pattern) for pattern in patterns)]
    usual = [path for name, path in visible if text_ending(name) in READABLE]
    # A .json beside other files is mostly about them.
    return usual or [path for name, path in visible if text_ending(name) in JSON_ENDINGS]


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name if "/" in pattern else name.rsplit("/", 1)[-1], pattern)


def _visible(folder: Folder) -> list[tuple[str, str]]:
    """Name below the folder and path of each file, in order of path, hidden and unfinished ones left out."""
    paths = _linked(folder.root) if isinstance(folder.fs, LocalFileSystem) else _listed(folder)
    named = sorted((path, path.removeprefix(folder.root).lstrip("/")) for path in paths)
    return [(name, path) for path, name in named if not any(map(_is_hidden, name.split("/")))]


def _is_hidden(part: str) -> bool:
    """As Spark, Hive and Arrow have it: .ipynb_checkpoints, _temporary; but not a partition _day=1."""
    return part.startswith(".") or (part.startswith("_") and "=" not in part)


def _listed(folder: Folder) -> Iterable[str]:
    return folder.fs.find(folder.root) if folder.fs.exists(folder.root) else []


def _linked(root: str) -> Iterable[str]:
    """Files of a local directory, each directory once; links are followed, but not to a directory above."""
    visited: set[str] = set()
    waiting = [root]
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0)):
            real = os.path.realpath(place)
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            links = [os.path.join(place, name) for name in sorted(folders)]
            waiting += [link for link in links if os.path.islink(link) and not _is_above(link, real)]
            yield from (os.path.join(place, name) for name in names)


def _is_above(link: str, folder: str) -> bool:
    return (folder + "/").startswith(os.path.realpath(link).rstrip("/") + "/")


def _once(folder: Folder, files: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each file once: under its own name where that is among them, else under the first link's."""
    if not isinstance(folder.fs, LocalFileSystem):
        return files
    real = {path: os.path.realpath(path) for _, path in files}
    chosen: dict[str, str] = {}
    for _, path in files:
        if real[path] not in chosen or path == real[path]:
            chosen[real[path]] = path
    return [(name, path) for name, path in files if chosen[real[path]] == path]


def partitions(source: str, path: str) -> dict[str, str | None]:
    """Column -> value as the folders between a source and a file of it say: day=2021-01-01/part-0.csv."""
    root, file = Folder.at(source), Folder.at(path)
    values: dict[str, str | None] = {}
    for part in file.root.removeprefix(root.root).split("/")[:-1]:
        key, equals, value = part.partition("=")
        if equals:
            values[unquote(key)] = None if value == NO_PARTITION else unquote(value)
    return values

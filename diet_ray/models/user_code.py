"""Code of the user's own, named in a command or a config: import it, and describe what goes wrong in it."""

import importlib
import os
import sys
import sysconfig
import traceback
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from diet_ray.errors import ConfigError

OURS = ("diet_ray", "actors", "pipelines", "tune_spaces")
_places: set[str] = set()  # directories of the user's modules that were imported by name


def import_named(path: str, what: str) -> Any:
    """The object at `package.module:attribute` or `file.py:attribute`.

    Modules in the working directory come first. Where there is no such file, as on another node, its name is
    that of a module.

    Args:
        path: e.g. "my_net:Net" or "nets/my_net.py:Net".
        what: whose name it is, e.g. "model 'my_net:Net'"; a message starts with it.

    Raises:
        ConfigError: the path is malformed, there is no such module or attribute, or its import fails.
    """
    place, _, attribute = path.partition(":")
    file = Path(place) if place.endswith(".py") else None
    module = file.stem if file else place
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise ConfigError(
            f"{what} cannot be imported: {path!r} is not of the form package.module:Name or file.py:Name"
        )
    if file and file.is_file():
        _look_in(str(file.resolve().parent))
    loaded = import_module(module, what)
    if file and file.is_file() and Path(loaded.__file__ or "").resolve() != file.resolve():
        raise ConfigError(
            f"{what} cannot be imported: {loaded.__file__} is another module {module}; rename the file"
        )
    try:
        return attrgetter(attribute)(loaded)
    except AttributeError as missing:
        source = getattr(loaded, "__file__", None) or "built in"
        raise ConfigError(
            f"{what} cannot be imported: module {module} ({source}) has no attribute {attribute!r}"
        ) from missing


def import_module(name: str, what: str) -> ModuleType:
    """The module `name`, looked for in the working directory first; errors as for `import_named`.

    A console command does not look there by itself, as `python -m` does. Ray puts the working directory of
    the driver on the path of its workers.
    """
    with suppress(FileNotFoundError):  # the working directory may have been deleted
        if "" not in sys.path:
            _look_in(os.getcwd())
    importlib.invalidate_caches()
    try:
        loaded = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name and f"{name}.".startswith(f"{missing.name}."):
            raise ConfigError(
                f"{what} cannot be imported: there is no module {missing.name!r} in the working directory or "
                "among the installed packages"
            ) from missing
        raise ConfigError(f"{what} cannot be imported: {describe(missing)}") from missing
    except (Exception, SystemExit) as failed:
        raise ConfigError(f"{what} cannot be imported: {describe(failed)}") from failed
    if path := _path_of(sys.modules[name.partition(".")[0]]):
        _places.add(os.path.dirname(path))
    return loaded


def own_modules() -> list[str]:
    """Files and package folders of the user's modules that were imported by name, and of those beside them.

    They are what workers on other nodes need: only the driver's node has its working directory.
    """
    loaded = [module for name, module in list(sys.modules.items()) if name.isidentifier()]
    paths = {path for module in loaded if (path := _path_of(module))}
    return sorted(path for path in paths if os.path.dirname(path) in _places)


def _path_of(module: ModuleType) -> str | None:
    """Where the user's top-level module lies; None where it is installed, ours or not of Python."""
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py") or _is_installed(file) or module.__name__ in (*OURS, "__main__"):
        return None
    return os.path.dirname(file) if hasattr(module, "__path__") else file


def _look_in(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def describe(failure: BaseException) -> str:
    """An exception in one line: its type, its message, and the user's line in which it arose.

    That is the innermost line outside installed packages, or the innermost one where there is none.
    """
    said = " ".join(str(failure).split())
    if isinstance(failure, SyntaxError):
        return f"SyntaxError: {said}"  # names the file and the line itself
    frames = traceback.extract_tb(failure.__traceback__)
    own = [frame for frame in frames if not _is_installed(frame.filename)] or frames
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(failure).__name__}{': ' if said else ''}{said}{place}"


def _is_installed(file: str) -> bool:
    """Whether a line of this file is no line of the user's: of a package, of Python itself or of diet_ray."""
    packages, here = {sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")}, Path(__file__)
    return file.startswith(("<", *packages, str(here.parents[1])))

"""Marks that training of a stage has finished, so that an interrupted stage does not train again.

The mark lies beside the checkpoint, of which no record tells yet. It is used where it is of the same block
and of the same training before it, and every file of the checkpoint is as it was written: then training
again would end with the same checkpoint.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from diet_ray import layout
from diet_ray.errors import DataError
from diet_ray.log.dataset import Block, plain_block
from diet_ray.runs.records import sha256
from diet_ray.storage import FileStamp, Folder


class Trained(NamedTuple):
    """What training on a block left behind."""

    files: tuple[FileStamp, ...]  # of the checkpoint
    loss: float
    seconds: float


def trained_once(folder: Folder, stage: int, block: Block, train: Callable[[], Trained]) -> Trained:
    """What training of a stage has left; `train` is called where no usable mark says that it has finished.

    Args:
        folder: the run directory.
        stage: its stage before is trained.
        block: of the stage.
        train: learns the block and writes the checkpoint.
    """
    basis = {"block": sha256(_json(plain_block(block))), "before": _identity(_mark(folder, stage - 1))}
    if trained := _usable(folder, stage, basis):
        return trained
    place = layout.stage_folder("reference", stage)
    if folder.exists(place):  # of a training that was interrupted, or of another block
        folder.fs.rm(folder / place, recursive=True)
    trained = train()
    mark = {**basis, **trained._asdict(), "files": [stamp._asdict() for stamp in trained.files]}
    folder.write_json(layout.trained(stage), mark)
    return trained


def trained_ahead(folder: Folder, stage: int) -> int:
    """How many stages after `stage`, the last committed one, have a mark."""
    count = 0
    while folder.exists(layout.trained(stage + count + 1)):
        count += 1
    return count


def _usable(folder: Folder, stage: int, basis: dict[str, str]) -> Trained | None:
    mark = _mark(folder, stage)
    try:
        if any(mark.get(key) != value for key, value in basis.items()):
            return None
        files = tuple(FileStamp(**stamp) for stamp in mark["files"])
        if not files or any(folder.digest(stamp.path) != stamp for stamp in files):
            return None
        return Trained(files, float(mark["loss"]), float(mark["seconds"]))
    except (KeyError, TypeError, ValueError, AttributeError, DataError, OSError):
        return None  # it is trained again


def _mark(folder: Folder, stage: int) -> dict[str, Any]:
    """The mark of a stage; empty where there is none, or one that cannot be read."""
    if not stage or not folder.exists(layout.trained(stage)):
        return {}
    try:
        mark = folder.read_json(layout.trained(stage))
    except DataError:
        return {}
    return mark if isinstance(mark, dict) else {}


def _identity(mark: dict[str, Any]) -> str:
    """A checksum of everything in a mark but the time it took; "" of none."""
    return sha256(_json({**mark, "seconds": 0})) if mark else ""


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()

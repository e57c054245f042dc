"""TensorBoard logs of a run and of the trials of a search."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from diet_ray.runs.records import StageRecord
from diet_ray.storage import Folder


class Board:
    """A TensorBoard log below a folder; on storage that is not local its file is written anew at each step.

    `SummaryWriter` hands its events to a thread, and nobody can tell when they are on disk; this does not.

    Args:
        folder: of the run or of the search.
        path: of the log in it.
        first: the step to begin with; TensorBoard drops what an earlier log has from there on.
    """

    def __init__(self, folder: Folder, path: str, first: int = 1) -> None:
        self.folder, self.path = folder, path
        self.local = isinstance(folder.fs, LocalFileSystem)
        self.place = folder / path if self.local else tempfile.mkdtemp(prefix="diet-ray-board-")
        os.makedirs(self.place, exist_ok=True)
        # The suffix keeps two logs of one second apart.
        self.writer = EventsWriter(f"{self.place}/events", f".{first:06d}")
        self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Values of a step by name; None where there is none."""
        known = [
            Summary.Value(tag=name, simple_value=value) for name, value in values.items() if value is not None
        ]
        self._write(Event(step=step, summary=Summary(value=known)))

    def close(self) -> None:
        self.writer.close()
        if not self.local:
            shutil.rmtree(self.place)

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.writer.write_event(event)
        self.writer.flush()
        if not self.local:
            for file in Path(self.place).iterdir():
                self.folder.write(f"{self.path}/{file.name}", file.read_bytes())


def stage_values(record: StageRecord) -> dict[str, float | None]:
    """What TensorBoard shows of a stage."""
    metrics = record.metrics
    outer = metrics.memory.outer_loss
    scores = {
        "progressive": metrics.progressive,
        "probe": metrics.probe,
        "probe_newest": metrics.probe_newest,
    }
    return {
        "training_loss": metrics.training_loss,
        "outer_loss/first": outer[0] if outer else None,
        "outer_loss/last": outer[-1] if outer else None,
        "el2n": metrics.el2n.mean,
        "memory_rows": metrics.memory.rows,
        "block_rows": metrics.block_rows,
        **{f"auc/{name}": each.auc if each else None for name, each in scores.items()},
        **{f"seconds/{part}": value for part, value in metrics.seconds.model_dump().items()},
    }

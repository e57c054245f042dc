"""The TensorBoard log of a run: what a stage reports, by stage, also after a restart and on other storage."""

import struct
from pathlib import Path

import fsspec
import pytest
from tensorboardX.proto.event_pb2 import Event

from diet_ray.runs.metrics import MeanScores
from diet_ray.storage import Folder
from pipelines.runtime.board import Board, stage_values
from tests.report_runs import write_stream


def events(content: bytes) -> list[Event]:
    """The events of a log: length, its checksum, the event, its checksum, again and again."""
    found, place = [], 0
    while place < len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        found.append(Event.FromString(content[place + 12 : place + 12 + size]))
        place += 16 + size
    return found


def scalars(files: list[bytes], name: str) -> list[tuple[int, float]]:
    """Step and value of a name, as TensorBoard shows them: a later log takes the steps from its start on."""
    shown: dict[int, float] = {}
    for content in files:
        for event in events(content):
            if event.session_log.status:  # of a log that begins anew at a step
                shown = {step: value for step, value in shown.items() if step < event.step}
            for each in event.summary.value:
                if each.tag == name:
                    shown[event.step] = each.simple_value
    return sorted(shown.items())


def logs(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("events*"))]


def test_a_stage_reports_its_losses_scores_and_seconds(tmp_path: Path) -> None:
    run = write_stream(tmp_path, 10)
    board = Board(run.folder, "tensorboard")
    for record in run.records:
        board.add(record.stage, stage_values(record))
    board.close()
    files, metrics = logs(tmp_path / "tensorboard"), [record.metrics for record in run.records]
    assert [step for step, _ in scalars(files, "training_loss")] == list(range(1, 11))
    for name, expected in (
        ("outer_loss/last", metrics[9].memory.outer_loss[-1]),
        ("auc/probe", (metrics[9].probe or MeanScores(auc=0, logloss=0)).auc),
        ("seconds/distill", metrics[9].seconds.distill),
        ("memory_rows", metrics[9].memory.rows),
    ):
        assert scalars(files, name)[-1] == (10, pytest.approx(expected)), name
    assert len(scalars(files, "auc/probe")) == 1  # of ten stages one was probed


def test_a_run_that_went_back_shows_its_new_stages_alone(tmp_path: Path) -> None:
    for first, loss in ((1, 0.5), (3, 0.25)):
        board = Board(Folder.at(str(tmp_path)), "log", first)
        for step in range(first, 5):
            board.add(step, {"loss": loss})
        board.close()
    assert scalars(logs(tmp_path / "log"), "loss") == [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.25)]


def test_on_other_storage_each_step_is_there_at_once() -> None:
    store = fsspec.filesystem("memory")
    board = Board(Folder.at("memory://board"), "log")
    for step in (1, 2):
        board.add(step, {"loss": 0.5, "auc": None})
        (file,) = store.glob("/board/log/events*")
        assert [at for at, _ in scalars([store.cat(file)], "loss")] == list(range(1, step + 1))
    board.close()
    assert not Path(board.place).exists()

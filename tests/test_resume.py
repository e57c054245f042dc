"""What an interrupted stage has trained is used, where it is whole and of the same block, and only there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diet_ray
from diet_ray import layout, local
from diet_ray.log.dataset import PreparedLog
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.run import Run
from diet_ray.runs.trained import Trained, trained_ahead, trained_once
from diet_ray.storage import Folder
from tests.distinct_blocks import SMALL, write_distinct_blocks


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("resume")
    write_distinct_blocks(folder / "log")
    return str(folder / "log")


@pytest.fixture(scope="module")
def whole(log: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    diet_ray.distill(log, str(run), SMALL, probe_seeds=0)
    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The stages that were trained, in order."""
    stages: list[int] = []
    train = ReferenceTrainer.train

    def noted(self: ReferenceTrainer, stage: int, *more: Any) -> Any:
        stages.append(stage)
        return train(self, stage, *more)

    monkeypatch.setattr(ReferenceTrainer, "train", noted)
    return stages


def interrupt(log: str, run: Path, stage: int) -> None:
    """A distillation that is interrupted after a stage is trained and before it is committed."""
    distill = local.LocalWorkers.distill

    def interrupted(self: local.LocalWorkers, number: int, *more: Any) -> Any:
        if number == stage:
            raise KeyboardInterrupt
        return distill(self, number, *more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local.LocalWorkers, "distill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            diet_ray.distill(log, str(run), SMALL, probe_seeds=0)


def assert_same_run(found: Path, expected: Path) -> None:
    for part in ("memory", "reference"):
        for path in expected.glob(f"{part}/*/*"):
            if path.name != "trained.json":  # it has seconds
                assert (found / path.relative_to(expected)).read_bytes() == path.read_bytes(), path
    records = [Run.read(str(run)).records for run in (found, expected)]
    assert [r.metrics.training_loss for r in records[0]] == [r.metrics.training_loss for r in records[1]]


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_that_was_trained_is_not_trained_again(
    log: str, whole: Path, tmp_path: Path, trained: list[int], stage: int
) -> None:
    run = tmp_path / "run"
    interrupt(log, run, stage)
    assert trained == list(range(1, stage + 1)) and Run.read(str(run)).stage == stage - 1
    assert trained_ahead(Folder.at(str(run)), stage - 1) == 1
    mark = json.loads((run / f"reference/000{stage}/trained.json").read_text())
    trained.clear()
    done = diet_ray.distill(log, str(run), SMALL, probe_seeds=0)
    assert trained == list(range(stage + 1, 3))
    assert done.records[stage - 1].metrics.seconds.train == mark["seconds"]
    assert_same_run(run, whole)


def damaged_checkpoint(run: Path) -> None:
    files = json.loads((run / "reference/0002/trained.json").read_text())["files"]
    path = run / files[0]["path"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def no_checkpoint(run: Path) -> None:
    for path in (run / "reference/0002").iterdir():
        if path.name != "trained.json":
            path.unlink()


def changed(**keys: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / "reference/0002/trained.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return change


def unreadable(run: Path) -> None:
    (run / "reference/0002/trained.json").write_bytes(b'{"block": ')


def no_mark(run: Path) -> None:
    (run / "reference/0002/trained.json").unlink()


@pytest.mark.parametrize(
    "disturb",
    [
        damaged_checkpoint,
        no_checkpoint,
        changed(block="another"),
        changed(before="another"),
        changed(files=[]),
        changed(files="x"),
        changed(files=[{"path": "../x", "size": 1, "sha256": ""}]),
        changed(loss="much"),
        unreadable,
        no_mark,
    ],
)
def test_what_cannot_be_used_is_trained_again_to_the_same_end(
    log: str, whole: Path, tmp_path: Path, trained: list[int], disturb: Callable[[Path], None]
) -> None:
    run = tmp_path / "run"
    interrupt(log, run, 2)
    disturb(run)
    trained.clear()
    diet_ray.distill(log, str(run), SMALL, probe_seeds=0)
    assert trained == [2]
    assert_same_run(run, whole)


def test_a_chain_of_trained_stages_is_used_as_far_as_it_holds(log: str, tmp_path: Path) -> None:
    """The driver trains ahead: of what two stages left, the second is of use only after the same first."""
    folder, blocks = Folder.at(str(tmp_path)), PreparedLog.open(log).history
    calls: list[tuple[int, bytes]] = []

    def once(stage: int, content: bytes) -> Trained:
        def train() -> Trained:
            calls.append((stage, content))
            return Trained((folder.write(layout.checkpoint(stage), content),), 0.5, 1.0 + len(calls))

        return trained_once(folder, stage, blocks[stage - 1], train)

    first, second = once(1, b"one"), once(2, b"two")
    assert (once(1, b"other"), once(2, b"other")) == (first, second) and len(calls) == 2
    (tmp_path / layout.checkpoint(1)).write_bytes(b"cut")
    assert once(1, b"one").files == first.files  # trained again, to the same checkpoint
    assert once(2, b"other") == second
    (tmp_path / layout.checkpoint(1)).write_bytes(b"cut")
    once(1, b"changed")
    assert once(2, b"after changed").files != second.files
    assert [stage for stage, _ in calls] == [1, 2, 1, 1, 2]


def test_files_of_a_training_that_did_not_finish_are_removed(log: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    interrupt(log, run, 2)
    no_mark(run)
    (run / "reference/0002/half").write_bytes(b"half done")
    diet_ray.distill(log, str(run), SMALL, probe_seeds=0)
    assert not (run / "reference/0002/half").exists()

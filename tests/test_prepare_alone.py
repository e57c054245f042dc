"""Of two preparations in one directory one writes; the other is refused, or finds the log prepared."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from diet_ray.errors import RunError
from diet_ray.lease import Lease
from diet_ray.log.drift import DriftConfig, write_drift_log
from diet_ray.log.preparation.prepare import in_process, prepare
from diet_ray.storage import Folder
from tests.shop_log import assert_holds, by_block, shop_rows, shop_schema, write_source

SHOP = shop_schema()


class Waiting:
    """A mapper that waits in its first piece of work until it may go on."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
        self.reached.set()
        assert self.go.wait(60)
        return in_process(function, items, label)


def test_a_second_preparation_is_refused_by_name_and_disturbs_nothing(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "source", shop_rows()), tmp_path / "out"
    first = Waiting()
    thread = threading.Thread(target=prepare, args=(SHOP, source, str(out), first))
    thread.start()
    assert first.reached.wait(60)
    try:
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()} on"):
            prepare(SHOP, source, str(out))
        with pytest.raises(RunError, match="is being written by process"):
            write_drift_log(DriftConfig(rows=1000), str(out))
    finally:
        first.go.set()
        thread.join()
    assert not (out / "lease.json").exists()
    assert_holds(prepare(SHOP, source, str(out)), out, by_block(shop_rows()))


def test_a_preparation_whose_directory_was_taken_over_writes_no_manifest(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "source", shop_rows()), tmp_path / "out"

    def robbed(function: Callable[[Any], Any], items: Sequence[Any], label: str) -> list[Any]:
        folder = Folder.at(str(out))
        folder.write_json("lease.json", {**folder.read_json("lease.json"), "token": "other"})
        return in_process(function, items, label)

    with pytest.raises(RunError, match="was taken over by"):
        prepare(SHOP, source, str(out), robbed)
    assert not (out / "prepared.json").exists()


def test_who_waited_for_the_lease_finds_the_log_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_source(tmp_path / "source", shop_rows()), tmp_path / "out"
    enter = Lease.__enter__

    def late(lease: Lease) -> Lease:
        monkeypatch.setattr(Lease, "__enter__", enter)
        prepare(SHOP, source, str(out))  # by another process, between the look at the manifest and the lease
        return enter(lease)

    monkeypatch.setattr(Lease, "__enter__", late)
    log = prepare(SHOP, source, str(out), lambda *_: pytest.fail("the log was prepared a second time"))
    assert_holds(log, out, by_block(shop_rows()))


def test_a_prepared_log_that_may_only_be_read_is_opened(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "source", shop_rows()), tmp_path / "out"
    prepare(SHOP, source, str(out))
    with Lease(Folder.at(str(out))):  # whoever opens it takes no lease
        prepare(SHOP, source, str(out))

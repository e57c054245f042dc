"""Peak memory of a process without a GPU: it rises with what is allocated and falls with a reset."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diet_ray.training import device as device_module
from diet_ray.training.device import default_device, peak_bytes, reset_peak


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda a=available: a)
        assert default_device() == expected


def test_the_peak_on_a_gpu_is_what_torch_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(True))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12345)
    reset_peak()
    assert resets == [True] and peak_bytes() == 12345


def test_without_a_gpu_it_is_the_high_water_mark_of_proc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: pytest.fail("there is no GPU"))
    status, clear = tmp_path / "status", tmp_path / "clear"
    status.write_text("Name:\tpython\nVmPeak:\t9 kB\nVmHWM:\t   77 kB\nVmRSS:\t5 kB\n")
    monkeypatch.setattr(device_module, "STATUS", status)
    monkeypatch.setattr(device_module, "CLEAR", clear)
    reset_peak()
    assert clear.read_text() == "5" and peak_bytes() == 77 * 1024


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_it_is_that_of_the_whole_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, factor: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device_module, "STATUS", tmp_path / "none")
    monkeypatch.setattr(device_module, "CLEAR", tmp_path / "no" / "folder")
    monkeypatch.setattr(sys, "platform", platform)
    usage = SimpleNamespace(ru_maxrss=7)
    monkeypatch.setattr(device_module.resource, "getrusage", lambda who: usage)
    reset_peak()  # where the system cannot, nothing happens
    assert peak_bytes() == 7 * factor


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be reset here")
def test_the_peak_rises_with_what_is_allocated_and_falls_with_a_reset() -> None:
    reset_peak()
    before = peak_bytes()
    block = np.ones(30_000_000)  # 240 MB
    high = peak_bytes()
    assert high - before > 200e6
    del block
    assert peak_bytes() == pytest.approx(high, abs=2e7)
    reset_peak()
    assert peak_bytes() < high - 200e6

"""The device a process computes on, and the most memory it has used there."""

import resource
import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5)


def default_device() -> str:
    """Where this process computes: its GPU, if it has one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def reset_peak() -> None:
    """Start measuring anew; where the system cannot, the peak stays that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return


def peak_bytes() -> int:
    """Peak bytes on the GPU where there is one, else of the process, shared memory included."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    # Bytes on macOS, KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

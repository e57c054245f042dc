"""The most memory this process has held since it was last asked to forget."""

import resource
import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # proc(5)


def forget_peak() -> None:
    """Start anew; where the system cannot, the peak stays that of the process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        CLEAR.write_text(FORGET_PEAK)
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

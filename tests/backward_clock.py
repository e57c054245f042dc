"""Runs a module after whose start, so many seconds later, the wall clock jumps back by an hour.

python -m tests.backward_clock SECONDS MODULE ARGUMENTS...
"""

import runpy
import sys
import time

JUMP_S = 3600.0


def main() -> None:
    after, module, *sys.argv[1:] = sys.argv[1:]
    wall, jump = time.time, time.monotonic() + float(after)
    time.time = lambda: wall() - (JUMP_S if time.monotonic() >= jump else 0)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

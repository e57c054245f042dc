"""Check a run against its records: is every file there, and as it was written?"""

import json
import sys
from typing import Any

from diet_ray.errors import RunError
from diet_ray.runs.verification import Verification, verify_run
from diet_ray.storage import absolute
from pipelines.options.verify import Verify
from pipelines.reporting.sizes import size_text
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import bars


def execute(options: Verify) -> None:
    url = absolute(options.run)
    with bars() as shown:
        found = verify_run(url, lambda done, files: shown.follow("checking", done, files))
    print(json.dumps(plain(found), indent=1) if options.json else _lines(found))
    if found.faults:
        stages = sorted({fault.stage for fault in found.faults if fault.stage})
        raise RunError(f"{options.run} has {len(found.faults)} faults{advice(options.run, stages)}")


def plain(found: Verification) -> dict[str, Any]:
    """As JSON holds it."""
    return {**found._asdict(), "faults": [fault._asdict() for fault in found.faults]}


def _lines(found: Verification) -> str:
    removed = f", {found.removed} removed by the policy of the stream" if found.removed else ""
    checked = f"{found.stages} stages, {found.files} files, {size_text(found.bytes)}{removed}"
    return "\n".join([checked, *map(str, found.faults)]) if found.faults else f"{checked}: no fault"


def advice(run: str, stages: list[int]) -> str:
    """What to do about faults of these stages."""
    if not stages:
        return ""
    if stages[0] == 1:
        return "; restore the files from a backup, or distill anew into another directory"
    return (
        f"; restore the files from a backup, or go back to stage {stages[0] - 1} with `diet-ray rollback "
        f"{run} --to {stages[0] - 1}` and run it again"
    )


if __name__ == "__main__":
    sys.exit(run_command(Verify, "diet-ray verify"))

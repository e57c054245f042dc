"""The console command `diet-ray`."""

import sys
from typing import Annotated

import tyro

from pipelines.distill import Distill
from pipelines.evaluate import Evaluate
from pipelines.inspection import Inspect
from pipelines.prepare import Prepare
from pipelines.report import Report
from pipelines.runtime.command import guarded
from pipelines.search import Search
from pipelines.status import Status
from pipelines.stream import Stream
from pipelines.study import Study
from pipelines.train import Train

ABOUT = "Streaming dataset distillation for recommender models, on Ray."


def main() -> None:
    sys.exit(guarded(_run))


def _run() -> None:
    # The defaults of `distill` and `stream` are those of the recipe that their --config names.
    distill = Distill.defaults() if sys.argv[1:2] == ["distill"] else Distill(tyro.MISSING, tyro.MISSING)
    nothing = (tyro.MISSING, tyro.MISSING, tyro.MISSING)
    stream = Stream.defaults() if sys.argv[1:2] == ["stream"] else Stream(*nothing)
    commands = (
        Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[Distill, tyro.conf.subcommand("distill", default=distill)]
        | Annotated[Stream, tyro.conf.subcommand("stream", default=stream)]
        | Annotated[Status, tyro.conf.subcommand("status")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Search, tyro.conf.subcommand("search")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Study, tyro.conf.subcommand("study")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    )
    tyro.cli(commands, prog="diet-ray", description=ABOUT)()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

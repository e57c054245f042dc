"""What a stage over actors costs beyond the work itself, which one process does without Ray.

    $ python -m benchmarks.stage_overhead --rows 30000 --out overhead-30000.json

The same log of equal blocks is distilled in this process and over actors on a local head, with one thread and
one scorer; a stage lasts from one commit to the next. Over actors the next block is learned meanwhile, which
one process cannot do, so that its work is scoring and distilling, or learning where that takes longer. What a
stage over actors takes beyond that of one process is orchestration.
"""

import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray
import torch
import tyro

import diet_ray
from actors.placement import ResourceConfig
from benchmarks.scoring import write_log
from diet_ray import layout
from diet_ray.config import MethodConfig, OuterConfig, ReferenceConfig, RunConfig
from diet_ray.runs.run import Run
from pipelines.distill import distill
from pipelines.options.stream import ITERATIONS

FIRST = 2  # stages before this one start what starts once


@dataclass(frozen=True)
class Options:
    rows: int = 30_000
    """Rows of a block."""
    blocks: int = 12
    reference: str = "dcnv2"
    """Architecture; its options are the defaults."""
    dim: int = 32
    out: Path | None = None
    """JSON file of the results."""


def stages(run: str) -> list[dict[str, float]]:
    """Seconds of each stage after the first ones: from commit to commit, and its parts."""
    records = Run.read(run).records
    ends = [os.stat(f"{run}/{layout.record(number)}").st_mtime for number in range(1, len(records) + 1)]
    found = []
    for number, (before, after) in enumerate(pairwise(ends), start=2):
        seconds = records[number - 1].metrics.seconds
        if number > FIRST:
            found.append(
                {"stage": after - before, "train": seconds.train, "own": seconds.score + seconds.distill}
            )
    return found


def medians(of: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(stage[name] for stage in of), 4) for name in of[0]}


def main(options: Options) -> None:
    config = RunConfig(
        dim=options.dim,
        ratio=max(0.015, 16 / options.rows),
        reference=ReferenceConfig(name=options.reference, ensemble=()),
        method=MethodConfig(outer=OuterConfig(iterations=ITERATIONS)),
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder) / "log", {f"{n:04d}": options.rows for n in range(1, options.blocks + 1)})
        diet_ray.distill(f"{folder}/log", f"{folder}/alone", config, probe_seeds=0)
        ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
        distill(f"{folder}/log", f"{folder}/actors", config, ResourceConfig(threads=1, scorers=1))
        alone, actors = stages(f"{folder}/alone"), stages(f"{folder}/actors")
    work = max(medians(alone)["own"], medians(alone)["train"])
    results: dict[str, Any] = {
        "options": {**options.__dict__, "out": None},
        "load": os.getloadavg(),
        "in one process, s": medians(alone),
        "over actors, s": medians(actors),
        "actors / one process": round(medians(actors)["stage"] / medians(alone)["stage"], 3),
        "orchestration, share of a stage": round(1 - work / medians(actors)["stage"], 3),
    }
    print(json.dumps(results, indent=2))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))

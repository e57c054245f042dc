"""Distills, streams, evaluates and searches on a local head with logical GPUs; run as a process of its own.

    $ python -m tests.logical_run LOG RUN CPUS GPUS

Ray places by what a node declares: actors and tasks claim the GPUs and compute on the CPU.
"""

import os
import sys
from pathlib import Path

import ray

from actors.placement import ResourceConfig, cluster_nodes, plan
from diet_ray.config import CandidateConfig
from diet_ray.log.stream.config import StreamConfig
from pipelines.distill import distill
from pipelines.evaluate import evaluate
from pipelines.options.search import Search
from pipelines.options.stream import Stream
from pipelines.runtime.recipe import Recipe
from pipelines.search import search
from pipelines.stream import stream
from tests.stream_log import publish_all, write_log
from tests.tiny_run import FIT, TINY


def main(log: str, run: str, cpus: int, gpus: int) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(gpus)))
    ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=150_000_000,
        log_to_driver=False,
        _system_config={"prestart_worker_first_driver": False},  # else a process per CPU, most of them idle
    )
    resources = ResourceConfig(threads=1)
    print(plan(cluster_nodes(), resources))
    distill(log, run, TINY, resources)
    small = {"small": CandidateConfig(name="finalnet", options={"hidden": (4,)})}
    evaluate(log, run, ("diet", "warmup"), small, 1, FIT.model_copy(update={"rehearsal": 0.0}))
    fit = FIT.model_copy(update={"rehearsal": 0.0})
    search(Search(run=run, space="finalnet", samples=2, confirm=1, fit=fit))
    streamed(Path(run).with_name("stream"), resources)


def streamed(folder: Path, resources: ResourceConfig) -> None:
    """Two micro-blocks of a small log of its own."""
    folder.mkdir()
    publish_all(folder, write_log(folder).slice(0, 1_000), 2)
    recipe = Recipe.model_validate({**TINY.model_dump(), "resources": resources.model_dump()})
    stream(
        Stream(
            dataset=str(folder / "schema.yaml"),
            source=str(folder / "in"),
            run=str(folder / "run"),
            until_idle=0.3,
            poll=0.05,
            stream=StreamConfig(block_rows=500, min_rows=2),
            settings=recipe,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

"""Asks the cluster, or a run directory, whether a memory is good."""

import ray

from actors.cells import judge_memory
from actors.connection import connect, user_errors
from actors.placement import cluster_nodes, task_claim
from diet_ray.runs.run import Run
from diet_ray.storage import absolute
from pipelines.runtime.progress import bars, console


def say_verdict(data: str, run: str, seeds: int) -> None:
    """Probe the newest memory of a finished run over the cluster and print the verdict; 0 seeds: nothing."""
    if not seeds:
        return
    connect()
    task = judge_memory.options(num_gpus=task_claim(cluster_nodes()).gpus)
    config = Run.read(run).run_config.model_dump(mode="json")
    with bars() as shown, shown.bar("probing the memory", 1, "memories") as bar, user_errors():
        text = ray.get(task.remote(absolute(data), absolute(run), config, seeds))
        bar.advance(1)
    console.print(text, markup=False)

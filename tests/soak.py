"""A stream of a thousand micro-blocks: does it stay as small and as fast as it began?

    make soak BLOCKS=1000

Writes OUT.json (seconds of every stage, resident memory of every process by stage) and OUT.svg, the plot.
"""

import json
import shutil
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import psutil
import tyro
from matplotlib import pyplot
from rich.console import Console

from diet_ray.runs.run import Run
from tests.small_cluster import OURS, SmallCluster, title
from tests.stream_log import publish, start, write_log

BLOCK_ROWS = 100
AHEAD = 20  # files published before the stream needs them
EVERY_S = 5.0
SERVERS = {"raylet": "raylet and object store", "gcs_server": "global control store"}


def soak(blocks: int = 1000, out: Path = Path(".demo/soak")) -> None:
    """Stream BLOCKS micro-blocks of 100 rows through one driver; time every stage, weigh every process."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    log, cluster = write_log(folder, rows=blocks * BLOCK_ROWS), SmallCluster(folder / "ray")
    run = folder / "run"
    # A hundred rows tell no AUC: the bound on its fall would stop the stream.
    options = ("--resources.threads=1", "--resources.scorers=1", "--stream.max-fall=1")
    # Full after a tenth of the stages: what grows by design does not hide what should not.
    options += (f"--stream.max-memory-rows={blocks * BLOCK_ROWS // 200}",)
    environment = cluster.environment
    driver = start(folder, run, *options, block_rows=BLOCK_ROWS, environment=environment)
    samples, published = [], 0
    try:
        while driver.poll() is None:
            stage = newest(run)
            while published < min(blocks, stage + AHEAD):
                rows = log.slice(published * BLOCK_ROWS, BLOCK_ROWS)
                publish(folder, f"{published:05d}.parquet", rows)
                published += 1
            samples.append({"stage": stage, "bytes": weigh(cluster, driver.pid)})
            Console().print(f"stage {stage} of {blocks}", end="\r")
            time.sleep(EVERY_S)
    finally:
        cluster.stop()
    if driver.returncode != 0 or newest(run) != blocks:
        sys.exit(
            f"the stream ended with {driver.returncode} after {newest(run)} stages, see {folder / 'out'}"
        )
    found = {"seconds": stage_seconds(run), "samples": samples, "files": count_files(run)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(found))
    plot(found, out.with_suffix(".svg"))
    Console().print(summary(found), markup=False)
    shutil.rmtree(folder)


def newest(run: Path) -> int:
    latest = run / "memory/latest.json"
    return json.loads(latest.read_text())["stage"] if latest.exists() else 0


def weigh(cluster: SmallCluster, driver: int) -> dict[str, int]:
    """Resident bytes of each process of the stream; the object store counts with the raylet."""
    found = {"driver": psutil.Process(driver).memory_info().rss}
    for process in cluster.processes():
        try:
            said, rss = title(process), process.memory_info().rss
        except psutil.Error:
            continue
        for mark in OURS:
            if said.startswith(mark):
                found[mark.removeprefix("ray::")] = rss
        for mark, name in SERVERS.items():
            if said.split(" ")[0].endswith(f"/{mark}"):
                found[name] = rss
    return found


def stage_seconds(run: Path) -> list[float]:
    """From one commit to the next, in order."""
    stages = range(1, len(Run.read(str(run)).records) + 1)
    times = [(run / f"stages/{stage:04d}.json").stat().st_mtime for stage in stages]
    return [after - before for before, after in pairwise(times)]


def count_files(run: Path) -> dict[str, int]:
    """Files that are left of all stages, by folder."""
    return {
        part.name: sum(1 for file in part.rglob("*") if file.is_file())
        for part in run.iterdir()
        if part.is_dir()
    }


def plot(found: dict, path: Path) -> None:
    matplotlib.use("svg")
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    seconds = np.array(found["seconds"])
    above.plot(np.arange(2, len(seconds) + 2), seconds, ".", ms=2, color="#9aa0a6", label="each stage")
    width = max(1, len(seconds) // 20)
    middle = [np.median(seconds[max(0, n - width) : n + width]) for n in range(len(seconds))]
    above.plot(np.arange(2, len(seconds) + 2), middle, color="#1b1b1b", lw=1.2, label="median around it")
    above.set(ylabel="seconds from commit to commit", ylim=(0, float(np.quantile(seconds, 0.995)) * 1.3))
    above.legend()
    for name in found["samples"][-1]["bytes"]:
        points = [(s["stage"], s["bytes"][name] / 2**20) for s in found["samples"] if name in s["bytes"]]
        below.plot(*zip(*points, strict=True), label=name, lw=1.2)
    below.set(xlabel="stage", ylabel="resident memory, MiB", ylim=(0, below.get_ylim()[1] * 1.3))
    below.legend(loc="upper right", ncols=3)
    figure.savefig(path)


def summary(found: dict) -> str:
    """Medians over the second tenth of the stages and over the last."""
    blocks = len(found["seconds"]) + 1
    early, late = (blocks // 10, blocks // 5), (blocks - blocks // 10, blocks)
    head = f"| | stages {early[0]} to {early[1]} | stages {late[0]} to {late[1]} | ratio |"
    lines = [head, "|---|---|---|---|"]

    def line(name: str, values: list[tuple[int, float]], unit: str) -> None:
        ends = [np.median([v for stage, v in values if a <= stage <= b]) for a, b in (early, late)]
        lines.append(f"| {name} | {ends[0]:.3g} {unit} | {ends[1]:.3g} {unit} | {ends[1] / ends[0]:.2f} |")

    line("stage", list(enumerate(found["seconds"], start=2)), "s")
    for name in found["samples"][-1]["bytes"]:
        sampled = [(s["stage"], s["bytes"][name] / 2**20) for s in found["samples"] if name in s["bytes"]]
        line(name, sampled, "MiB")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(soak, prog="python -m tests.soak")

"""What more nodes change: a run of two stages on simulated clusters of 1, 2, 4 and 8 nodes.

    $ python -m benchmarks.cluster_simulation --out docs/simulation.json --plot docs/simulation.svg

Every node is a Ray node of its own on this machine (`ray.cluster_utils.Cluster`) with one logical GPU and a
scorer on it; the head has those of the reference and the distiller. Driver, placement, Ray Data and files,
choosing rows, the distiller and its memory, checkpoints and commits are those of a run. Simulated is what a
GPU does with the rows of the block: scorers and the reference sleep for as long as they would take at `rate`,
scores are a hash of the row number, embeddings are noise. A block is the same file again and again.

Each cluster is used by a process of its own, so that its peak memory is that of the driver of one run.
Seconds are those of the record of the second stage, which fuses old rows, and whose training ran beside the
first.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import tyro
from ray.cluster_utils import Cluster

import actors.reference.choice
import pipelines.runtime.driver
from actors.block_source import from_table
from actors.placement import ResourceConfig, RoleNodes, cluster_nodes, plan
from actors.reference.model import ReferenceModel
from actors.scorer import Scorer
from benchmarks.driver_memory import long_block, resident
from benchmarks.scoring import FIELDS, TASKS, write_log
from diet_ray.config import RunConfig
from diet_ray.distillation.memory_update import memory_rows
from diet_ray.distillation.row_choice import row_hash
from diet_ray.distillation.scored_rows import AlignedPart, EmbeddedRows, ScoredPart, Span
from diet_ray.lease import Lease
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.runs.history import log_identity
from diet_ray.runs.run import Run
from diet_ray.runs.stage import Budget
from diet_ray.storage import Folder
from diet_ray.training.device import peak_bytes, reset_peak
from pipelines.distill import History
from pipelines.runtime.driver import Driver
from pipelines.runtime.progress import bars

FILE_ROWS, STAGES, SPEEDS = 20_000, 2, "speeds.json"
ALIGN = 1.77  # seconds of an alignment pass over those of scoring (docs/performance.md, DCNv2 on an H200)
TRAIN = 0.1  # seconds of training over those of scoring: short, for more scorers do not change it
SMALL: dict[str, Any] = {
    "dim": 8,
    "ratio": 0.015,
    "pool_rows": 4096,
    "reference": {"name": "dcn", "ensemble": ("dcn",)},
    "method": {"outer": {"iterations": 4, "real_rows": 512}},
}


@dataclass(frozen=True)
class Options:
    nodes: tuple[int, ...] = (1, 2, 4, 8)
    """Sizes of the clusters, besides the head."""
    rows: int = 16 * 65_536
    """Rows of each block; 16 parts, so that each of the nodes gets as many."""
    rate: float = 30_000
    """Rows that a simulated GPU scores in a second; 1/1.77 of it are aligned. Slow, so that what this machine
    computes for all nodes together does not hide what they would do."""
    larger: int = 4
    """The largest cluster also gets blocks of so many times the rows, scored as many times as fast."""
    out: Path | None = None
    """JSON file of the results."""
    plot: Path | None = None
    """SVG of the results."""
    alone: bool = False
    """One cluster in this process; for itself."""


class SleepingScorer(Scorer):
    """Needs no checkpoint and sleeps."""

    def score(self, stage: int, span: Span, table: pa.Table | None = None) -> ScoredPart:
        even_N, other_N = self._even(1, table), self._even(2, table)
        self._sleep(len(even_N), "score")
        return ScoredPart(
            span.first, (even_N * 3**0.5).astype(np.float32), (other_N * 2 ** len(TASKS)).astype(np.int64)
        )

    def align(self, stage: int, span: Span, directions: Any, table: pa.Table | None = None) -> AlignedPart:
        columns = [self._even(3 + proxy, table) - 0.5 for proxy in range(len(directions))]
        self._sleep(len(columns[0]), "align")
        return AlignedPart(span.first, np.stack(columns, 1).astype(np.float32))

    def embed_table(self, stage: int, table: pa.Table) -> EmbeddedRows:
        rows, chosen = from_table(table)
        draw = np.random.default_rng(stage)
        emb_NFD = draw.standard_normal((rows.rows, len(FIELDS), self.state.config.dim), np.float32)
        logit_NT = draw.standard_normal((rows.rows, len(TASKS)), np.float32)
        return EmbeddedRows(emb_NFD, logit_NT, rows.label_NT.astype(np.float32), chosen.cell_N)

    def _sleep(self, rows: int, work: str) -> None:
        time.sleep(rows / self.state.folder.read_json(SPEEDS)[work])

    @staticmethod
    def _even(seed: int, table: pa.Table | None) -> Any:
        assert table is not None
        return row_hash(seed, from_table(table)[1].row_N) * 2.0**-64


class SleepingReference(ReferenceModel):
    """Learns the file and sleeps for the rest of the block."""

    def train(self, stage: int) -> Any:
        time.sleep(self.state.folder.read_json(SPEEDS)["train"])
        yield from super().train(stage)


class LongHistory(History):
    """Blocks of `rows` rows."""

    def __init__(self, log: PreparedLog, config: RunConfig, rows: int) -> None:
        super().__init__(log, config)
        self.rows = rows

    def next(self, stage: int) -> Block | None:
        block = super().next(stage)
        return long_block(block, self.rows) if block else None

    def budget(self, block: Block, stage: int, old_rows: int) -> Budget:
        rows = memory_rows(self.config, stage * block.rows)
        return Budget(rows, self.config.method.boundary.new_rows(rows, old_rows))


def simulated(options: Options) -> dict[str, Any]:
    """The run on one cluster."""
    (count,) = options.nodes
    rate = options.rate
    config = RunConfig.model_validate(SMALL)
    actors.reference.choice.ReferenceModel = SleepingReference  # type: ignore[misc]
    pipelines.runtime.driver.Scorer = SleepingScorer  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        log = write_log(Path(folder) / "log", {f"{stage:04d}": FILE_ROWS for stage in range(1, STAGES + 1)})
        url = f"{folder}/run"
        speeds = {"score": rate, "align": rate / ALIGN, "train": options.rows / rate * TRAIN}
        Folder.at(url).write_json(SPEEDS, speeds)
        began = time.perf_counter()
        cluster = started(count)
        start_s = time.perf_counter() - began
        nodes = RoleNodes(reference="head", distiller="head", scorers="worker")
        wanted = ResourceConfig(num_cpus=0, num_gpus=1, threads=1, scorers=count, nodes=nodes)
        run = Run.open(url, {**config.model_dump(mode="json"), **log_identity(log)})
        with Lease(Folder.at(url)) as lease:
            driver = Driver(
                LongHistory(log, config, options.rows),
                run,
                data=f"{folder}/log",
                url=url,
                config=config,
                plan=plan(cluster_nodes(), wanted),
                lease=lease,
            )
            before = resident()
            reset_peak()
            with bars() as shown:
                driver.run_stages(shown)
        peak = peak_bytes()
        last = run.records[-1].metrics
        ray.shutdown()
        cluster.shutdown()
    ideal = options.rows * (1 + ALIGN) / rate / count
    return {
        "nodes": count,
        "rows": options.rows,
        "parts read": -(-options.rows // FILE_ROWS),
        "memory rows": last.memory.rows,
        "score, s": round(last.seconds.score, 1),
        "of which sleep at least, s": round(ideal, 1),
        "distill, s": round(last.seconds.distill, 1),
        "driver before, MB": round(before / 1e6),
        "driver at its peak, MB": round(peak / 1e6),
        "start of the cluster, s": round(start_s, 1),
    }


def started(count: int) -> Cluster:
    """A cluster of a head and `count` nodes, which this process has joined."""
    small = {"object_store_memory": 150_000_000, "include_dashboard": False}
    head = {"num_cpus": 1, "num_gpus": 2, "resources": {"head": 1}, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(count):
        cluster.add_node(wait=False, num_cpus=1, num_gpus=1, resources={"worker": 1}, **small)
    cluster.wait_for_nodes(timeout=180)
    ray.init(address=cluster.address, log_to_driver=False)
    return cluster


def main(options: Options) -> None:
    if options.alone:
        print(json.dumps(simulated(options)))
        return
    sizes = [(count, 1) for count in options.nodes] + [(options.nodes[-1], options.larger)]
    runs = []
    for count, factor in sizes:
        given = replace(options, rows=options.rows * factor, rate=options.rate * factor)
        words = [f"--nodes={count}", f"--rows={given.rows}", f"--rate={given.rate}", "--alone"]
        command = [sys.executable, "-m", "benchmarks.cluster_simulation", *words]
        with tempfile.TemporaryDirectory(prefix="ray") as own:
            # Ray reads the token when it is imported, and tells other programs of a cluster in its folder.
            token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": own}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **token})
        if done.returncode:
            print(f"{count} nodes: failed", file=sys.stderr)
            continue
        runs.append({**json.loads(done.stdout.splitlines()[-1]), "load": round(os.getloadavg()[0], 1)})
        print(json.dumps(runs[-1]), flush=True)
    if options.out:
        shown = {key: value for key, value in asdict(options).items() if key not in ("out", "plot", "alone")}
        options.out.write_text(json.dumps({"options": shown, "runs": runs}, indent=2) + "\n")
    if options.plot:
        plot(runs, options.plot)


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Seconds of a stage and memory of the driver over the number of nodes."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    least = min(run["rows"] for run in runs)
    same = [run for run in runs if run["rows"] == least]
    nodes = [run["nodes"] for run in same]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(nodes, [run["score, s"] for run in same], "o-", label="scoring a block, all of it")
    left.plot(
        nodes, [run["of which sleep at least, s"] for run in same], "--", label="sleep alone, divided evenly"
    )
    left.plot(nodes, [run["distill, s"] for run in same], "s-", label="distilling")
    left.set(xscale="log", yscale="log", xlabel="nodes", ylabel="seconds", xticks=nodes, xticklabels=nodes)
    left.legend(frameon=False, fontsize=8)
    for rows in sorted({run["rows"] for run in runs}):
        of = [run for run in runs if run["rows"] == rows]
        counts = [run["nodes"] for run in of]
        right.plot(
            counts, [run["driver at its peak, MB"] for run in of], "o-", label=f"{rows:,} rows a block"
        )
    right.set(xscale="log", xlabel="nodes", ylabel="driver at its peak, MB", xticks=nodes, xticklabels=nodes)
    right.set_ylim(0, 900)
    for axes in (left, right):
        axes.minorticks_off()
    right.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main(tyro.cli(Options))

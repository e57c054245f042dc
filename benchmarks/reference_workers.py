"""How fast several workers learn the reference: rows a second and CPU seconds, by torch.distributed alone.

    python -m benchmarks.reference_workers --workers 1 2 --out reference_workers.json

Each number of workers learns the same block of a generated log and writes its checkpoint, in processes with
one thread each (gloo, on CPU), as the workers of Ray Train do. The start of Ray Train is not in the times. Of
several turns the fastest counts, for other programs only make one slower.
"""

import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import tyro

from diet_ray.config import RunConfig
from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from diet_ray.log.preparation.prepare import prepare
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.state import RunState
from diet_ray.training.parallel.peers import ALONE, Peers

TIMEOUT = timedelta(minutes=10)


@dataclass
class Settings:
    workers: tuple[int, ...] = (1, 2)
    rows: int = 60_000
    """Of the log; a block has a fifth of them."""
    turns: int = 3
    out: Path | None = None


@dataclass
class Turn:
    workers: int
    rows_per_second: float
    seconds: float
    cpu_seconds: float  # of all workers
    loss: float
    load: float  # of the machine, before the turn


def learn(folder: Path, size: int, rank: int, report: Path) -> None:
    """What one worker does; the first one writes seconds and loss to `report`, each its CPU seconds."""
    torch.set_num_threads(1)
    peers = ALONE
    if size > 1:
        dist.init_process_group("gloo", f"file://{report}.group", TIMEOUT, size, rank)
        peers = Peers.of_group()
    state = RunState.open(str(folder / "log"), str(report), RunConfig())
    trainer = ReferenceTrainer(state, peers=peers)
    peers.gather(None)
    started, cpu = time.perf_counter(), time.process_time()
    _, loss = trainer.train(1)
    found = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "loss": loss}
    (report / f"rank-{rank}.json").write_text(json.dumps(found))
    if size > 1:
        dist.destroy_process_group()


def turn(folder: Path, size: int, number: int, rows: int) -> Turn:
    load, report = os.getloadavg()[0], folder / f"{size}-{number}"
    report.mkdir()
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=learn, args=(folder, size, rank, report)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [json.loads((report / f"rank-{rank}.json").read_text()) for rank in range(size)]
    seconds = max(each["seconds"] for each in found)
    cpu = sum(each["cpu"] for each in found)
    return Turn(size, rows / seconds, seconds, cpu, found[0]["loss"], load)


def main(settings: Settings) -> None:
    turns = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        log = DriftConfig(rows=settings.rows)
        prepared = prepare(drift_schema(log), write_drift_log(log, made), str(folder / "log"))
        rows = prepared.block(1).rows
        for number in range(settings.turns):
            for size in settings.workers:
                turns.append(turn(folder, size, number, rows))
                print(turns[-1], flush=True)
    best = [
        min((t for t in turns if t.workers == size), key=lambda t: t.seconds) for size in settings.workers
    ]
    found = {"block_rows": rows, "best": [asdict(t) for t in best], "turns": [asdict(t) for t in turns]}
    if settings.out:
        settings.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))

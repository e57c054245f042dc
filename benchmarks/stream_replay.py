"""Does a stream of micro-blocks end where a batch run of few large blocks ends, and what does it cost?

    $ python -m benchmarks.stream_replay --dataset globo --source GLOBO --history 12 --scored 14 \\
          --batch runs/globo --data data/globo --run runs/globo-stream --out replay.json

Publishes the first HISTORY files of SOURCE into a directory, one after another, lets `diet-ray stream` follow
them to the end, and trains a probe (diet_ray.evaluation.probe) on the last memory of the stream and on that
of the batch run, with several seeds; both are scored on the rows of file number SCORED, which neither has
seen. Takes half an hour on two cores. Expected on Globo: docs/reliability.md.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro

from diet_ray import layout
from diet_ray.distillation.memory import from_arrow
from diet_ray.distillation.memory_update import memory_schema
from diet_ray.evaluation.probe import probe_memory
from diet_ray.log.dataset import Block, EncodedLog, PreparedLog
from diet_ray.log.stream.arrivals import DirectoryArrivals
from diet_ray.log.stream.config import StreamConfig
from diet_ray.log.stream.intake import Intake
from diet_ray.log.stream.log import StreamLog
from diet_ray.log.stream.messages import MESSAGE_ROWS as PLACES
from diet_ray.runs.run import Run
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from pipelines.stream import intake_states
from tests.kafka_broker import broker, publish

MESSAGE_ROWS = 2_000
AHEAD_MESSAGES = 60


@dataclass(frozen=True)
class Options:
    dataset: str
    source: Path
    """Directory of the raw log, one file per day."""
    batch: str
    """Finished run over the same rows in few blocks."""
    data: str
    """Prepared log of that run; its validation block is file SCORED."""
    run: Path
    """Directory of the stream's run."""
    history: int = 12
    """Files that are streamed."""
    scored: int = 14
    """Number of the file that probes are scored on, from 0."""
    block_rows: int = 30_000
    seeds: int = 5
    config: str = "globo"
    through: Literal["directory", "kafka"] = "directory"
    """kafka: messages of an Arrow IPC stream, on a broker that this starts (tests/kafka_broker.py)."""
    more: tuple[str, ...] = ()
    """More options of `diet-ray stream`."""
    out: Path | None = None
    """JSON file of the result."""


def replay(options: Options, files: list[Path]) -> float:
    """Stream the files to their end; return the seconds it took."""
    began = time.monotonic()
    if options.through == "directory":
        incoming = options.run.with_name(options.run.name + "-incoming")
        incoming.mkdir(parents=True, exist_ok=True)
        stream = started(options, str(incoming))
        for file in files:
            shutil.copy(file, incoming / f".{file.name}")
            (incoming / f".{file.name}").rename(incoming / file.name)
        ended = stream.wait()
        shutil.rmtree(incoming)
    else:
        with broker() as address:
            stream = started(options, f"kafka://{address}/log", "--kafka.format=arrow", "--kafka.patience=2")
            feed(address, files, options.run, stream)
            ended = stream.wait()
    if ended:
        sys.exit("the stream has failed")
    return time.monotonic() - began


def started(options: Options, source: str, *more: str) -> subprocess.Popen[bytes]:
    words = ["--dataset", options.dataset, "--source", source, "--run", str(options.run)]
    words += ["--config", options.config, "--until-idle", "20", f"--stream.block-rows={options.block_rows}"]
    return subprocess.Popen([sys.executable, "-m", "pipelines.cli", "stream", *words, *more, *options.more])


def feed(address: str, files: list[Path], run: Path, stream: subprocess.Popen[bytes]) -> None:
    """Publish the rows in their order, not more than the broker can hold ahead of what is committed."""
    published = 0
    for file in files:
        table = pq.read_table(file)
        for first in range(0, table.num_rows, MESSAGE_ROWS):
            while published > taken(run) + AHEAD_MESSAGES and stream.poll() is None:
                time.sleep(0.2)
            publish(address, "log", as_message(table.slice(first, MESSAGE_ROWS)))
            published += 1


def as_message(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def taken(run: Path) -> int:
    """Offset of the first message that no committed stage has taken whole."""
    records = sorted((run / "stages").glob("*.json"))
    if not records:
        return 0
    (place,) = [
        stop for _, _, stop, _ in json.loads(records[-1].read_text())["metrics"]["stream"]["taken"][-1:]
    ]
    return place // PLACES


def scored_block(options: Options, run: Run, log: StreamLog, file: Path) -> Block:
    """The rows of a file as the next block of the stream, encoded but never committed."""
    raw = options.run.with_name(options.run.name + "-scored")
    raw.mkdir(exist_ok=True)
    shutil.copy(file, raw / file.name)
    states = intake_states(run)
    config = StreamConfig(block_rows=10**9, lateness=1e9)
    intake = Intake(run.folder, DirectoryArrivals(str(raw), log.schema), log.schema, config, states)
    intake.poll()
    closed = intake.close(run.stage + 1, whole=True)
    shutil.rmtree(raw)
    assert closed
    return closed.block


def probes(run: Run, log: EncodedLog, block: Block, seeds: int) -> list[float]:
    """AUC of a probe trained on the newest memory of a run, by seed."""
    torch.set_num_threads(1)
    config = run.run_config
    table = run.folder.read_parquet(layout.memory(run.stage))
    memory = from_arrow(table, memory_schema(log, config)).examples()
    checkpoint = StoredCheckpoint(run.folder, run.stage)
    return [probe_memory(memory, checkpoint, log, block, config.dim, seed).auc for seed in range(seeds)]


def costs(run: Run) -> dict[str, float]:
    """Where the time went, from commit to commit, the first stages (which start the actors) left out.

    A stage's period is what the slower of two takes that run side by side: learning the next block, and
    scoring, probing and optimising this one. Orchestration is reading and encoding the block and all of the
    period that neither of the two explains.
    """
    if len(run.records) < 5:
        return {}
    root = Path(run.folder.root)
    ends = [(root / f"stages/{record.stage:04d}.json").stat().st_mtime for record in run.records]
    periods = [after - before for before, after in pairwise(ends)]
    whole = orchestration = 0.0
    parts: dict[str, float] = {}
    for number in range(2, len(run.records) - 1):
        own, following = run.records[number].metrics, run.records[number + 1].metrics
        seconds = own.seconds.model_dump(exclude_none=True)
        train = seconds.pop("train")
        busy = max(sum(seconds.values()), following.seconds.train)
        whole += periods[number - 1]
        orchestration += max(0.0, periods[number - 1] - busy)
        for key, value in {**seconds, "train": train, "read": own.stream.seconds_to_read}.items():
            parts[key] = parts.get(key, 0.0) + value
    latency = [record.metrics.stream.seconds_to_commit for record in run.records[2:]]
    stages = len(run.records) - 3
    return {
        "period": whole / stages,
        **{f"{key} per stage": value / stages for key, value in parts.items()},
        "orchestration share": orchestration / whole,
        "seconds_to_commit median": statistics.median(latency),
        "seconds_to_commit p99": float(np.quantile(latency, 0.99)),
    }


def main(options: Options) -> None:
    files = sorted(options.source.glob("*.parquet"))
    seconds = replay(options, files[: options.history])
    run, batch = Run.read(str(options.run)), Run.read(options.batch)
    log, prepared = StreamLog.open(run.folder), PreparedLog.open(options.data)
    block = scored_block(options, run, log, files[options.scored])
    found = {
        "seconds": seconds,
        "stages": run.stage,
        "rows": sum(record.metrics.block_rows for record in run.records),
        "rows of the batch run": sum(record.metrics.block_rows for record in batch.records),
        "memory": run.records[-1].memory_stamp().sha256,
        "memory rows": run.records[-1].metrics.memory.rows,
        "memory rows of the batch run": batch.records[-1].metrics.memory.rows,
        "probe AUC": probes(run, log, block, options.seeds),
        "probe AUC of the batch run": probes(batch, prepared, prepared.blocks["validation"], options.seeds),
        **costs(run),
    }
    for key, value in found.items():
        print(f"{key:32} {value}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))

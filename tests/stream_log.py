"""A small log that arrives in files, with event ids, and runs of `diet-ray stream` over it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from tests.tiny_run import TINY

ROWS = 3_000
DEADLINE_S = 240


def write_log(folder: Path, rows: int = ROWS) -> pa.Table:
    """The schema at folder/schema.yaml; returns the rows in order of time, with a column `event`."""
    config = DriftConfig(rows=rows, users=100, items=60)
    schema = drift_schema(config).plain()
    source = write_drift_log(config, str(folder / "raw"))
    files = sorted(Path(source).rglob("*.parquet")) if Path(source).is_dir() else [Path(source)]
    table = pa.concat_tables([pq.read_table(file) for file in files])
    table = table.sort_by(schema["time"]["column"])
    table = table.append_column("event", pa.array([f"e{n}" for n in range(table.num_rows)]))
    schema = {key: value for key, value in schema.items() if key != "blocks"}
    schema |= {"event_id": "event", "malformed": "quarantine", "files": {"patterns": ["*.parquet"]}}
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema))
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY.model_dump(mode="json")))
    (folder / "in").mkdir(exist_ok=True)
    return table


def publish(folder: Path, name: str, rows: pa.Table) -> None:
    """A file of the source, whole at once."""
    hidden = folder / "in" / f".{name}"
    pq.write_table(rows, hidden)
    hidden.rename(folder / "in" / name)


def publish_all(folder: Path, table: pa.Table, files: int) -> None:
    cuts = np.linspace(0, table.num_rows, files + 1).astype(int)
    for number, (start, stop) in enumerate(pairwise(cuts)):
        publish(folder, f"{number:04d}.parquet", table.slice(start, stop - start))


def start(
    folder: Path,
    run: Path,
    *more: str,
    block_rows: int = 500,
    module: tuple[str, ...] = ("pipelines.stream",),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """`diet-ray stream` in a process of its own; it says into folder/out."""
    words = ["--dataset", str(folder / "schema.yaml"), "--source", str(folder / "in"), "--run", str(run)]
    words += ["--config", str(folder / "config.yaml"), "--poll", "0.05", "--until-idle", "0.5"]
    words += [f"--stream.block-rows={block_rows}", "--stream.min-rows=2", *more]
    environment = {**os.environ, **(environment or {"RAY_ADDRESS": "local"})}
    with (folder / "out").open("ab") as out:
        command = [sys.executable, "-m", *module, *words]
        return subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            cwd=Path(__file__).parents[1],
            env=environment,
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(DEADLINE_S) == 0, (folder / "out").read_text()


def kill_when(process: subprocess.Popen[bytes], folder: Path, moment: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not moment():
        assert process.poll() is None, (folder / "out").read_text()
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its workers go by themselves


def events(run: Path) -> list[str]:
    """Every event of every block of a run that keeps all its stages."""
    files = sorted(run.glob("events/*/events.parquet"))
    return [event for file in files for event in pq.read_table(file)["event id"].to_pylist()]

"""How fast is a raw log prepared, and in how much memory?

    $ python benchmarks/prepare_speed.py --rows 5000000 --out prepare.json
    $ python benchmarks/prepare_speed.py --rows 5000000 --fuxictr-python VENV/bin/python

The same generated Parquet files (17 fields, 3 tasks) are prepared by `diet-ray prepare`, by pandas
(factorize, column by column, in memory) and, where it is installed, by FuxiCTR's builder (`pip install
fuxictr==2.3.10`, in an environment of its own), each in a process of its own, the start of Ray included.
Expected: three times the rows per second of FuxiCTR or more, and no process above 2 GB at 20 million rows.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

Contender = Literal["diet_ray", "pandas", "fuxictr"]
SAMPLE_S = 0.1
FUXICTR_ROWS = 1_000_000  # of a file that FuxiCTR writes


@dataclass(frozen=True)
class Options:
    rows: int = 5_000_000
    users: int = 200_000
    items: int = 50_000
    contenders: tuple[Contender, ...] = ("diet_ray", "pandas", "fuxictr")
    repeats: int = 1
    """The best of so many counts."""
    folder: Path | None = None
    """Where the log is generated and prepared; kept there for the next time. Default: a temporary one."""
    fuxictr_python: str = sys.executable
    """Interpreter of the environment in which FuxiCTR is installed."""
    out: Path | None = None
    """JSON file of the result."""


def prepare_here(source: str, out: str, fields: list[str], tasks: list[str]) -> None:
    from actors.data import RayMapper
    from diet_ray.log.drift import drift_schema
    from diet_ray.log.drift_config import DriftConfig
    from diet_ray.log.preparation.prepare import prepare

    prepare(drift_schema(DriftConfig()), source, out, RayMapper())


def factorize(source: str, out: str, fields: list[str], tasks: list[str]) -> None:
    import pandas as pd

    files, codes = sorted(Path(source).glob("*.parquet")), {}
    for field in fields:
        column = pd.concat([pd.read_parquet(file, columns=[field])[field] for file in files])
        codes[field] = pd.factorize(column)[0].astype("int32")
    labels = pd.concat([pd.read_parquet(file, columns=["time_ms", *tasks]) for file in files])
    pd.DataFrame({**codes, **{name: labels[name].to_numpy() for name in labels}}).to_parquet(f"{out}.parquet")


def build(source: str, out: str, fields: list[str], tasks: list[str]) -> None:
    from fuxictr.preprocess import FeatureProcessor, build_dataset

    columns = [{"name": fields, "active": True, "dtype": "int", "type": "categorical"}]
    labels = [{"name": task, "dtype": "float"} for task in tasks]
    encoder = FeatureProcessor(feature_cols=columns, label_col=labels, dataset_id="log", data_root=out)
    # Without blocks it collects all rows in one process, sorts them and writes one file: slower.
    build_dataset(encoder, train_data=source, data_format="parquet", data_block_size=FUXICTR_ROWS)


CONTENDERS = {"diet_ray": prepare_here, "pandas": factorize, "fuxictr": build}


class Peak(threading.Thread):
    """The largest resident memory of one process below a process, shared memory (Ray's store) left out."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        import psutil

        self.root, self.bytes, self.cpu = psutil.Process(pid), 0, dict[int, float]()
        self.error, self.ended = psutil.Error, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_S):
            try:
                processes = [self.root, *self.root.children(recursive=True)]
            except self.error:
                return
            for process in processes:
                try:
                    memory, times = process.memory_info(), process.cpu_times()
                except self.error:
                    continue
                self.bytes = max(self.bytes, memory.rss - memory.shared)
                self.cpu[process.pid] = times.user + times.system


def measured(contender: Contender, options: Options, log: Path) -> dict[str, float] | None:
    """Wall seconds and memory of one contender in a process of its own; None where it is not installed."""
    from diet_ray.log.drift import FIELDS, TASKS

    out = log.parent / contender
    python = options.fuxictr_python if contender == "fuxictr" else sys.executable
    if (
        contender == "fuxictr"
        and subprocess.run([python, "-c", "import fuxictr"], capture_output=True).returncode
    ):
        print("fuxictr is not installed: left out", file=sys.stderr)
        return None
    results = []
    for _ in range(options.repeats):
        shutil.rmtree(out, ignore_errors=True)
        words = [python, __file__, "--run", contender, str(log / "source"), str(out), *FIELDS, "--", *TASKS]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_ADDRESS": "local"}
        if contender == "fuxictr":
            environment["PYTHONPATH"] = ""
        started = time.perf_counter()
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        peak = Peak(process.pid)
        peak.start()
        _, errors = process.communicate()
        seconds = time.perf_counter() - started
        peak.ended.set()
        if process.returncode:
            raise SystemExit(f"{contender} failed: {errors.decode()[-2000:]}")
        results.append(
            {
                "seconds": seconds,
                "cpu_seconds": sum(peak.cpu.values()),
                "rows_per_second": options.rows / seconds,
                "peak_gigabytes_of_a_process": peak.bytes / 1e9,
            }
        )
    return min(results, key=lambda result: result["seconds"])


def main(options: Options) -> None:
    from diet_ray.log.drift import write_drift_log
    from diet_ray.log.drift_config import DriftConfig

    with tempfile.TemporaryDirectory() as temporary:
        log = (options.folder or Path(temporary)).absolute() / "log"
        config = DriftConfig(rows=options.rows, users=options.users, items=options.items)
        write_drift_log(config, str(log))
        results: dict[str, Any] = {}
        for contender in options.contenders:
            if result := measured(contender, options, log):
                results[contender] = result
                print(contender, {name: round(value, 2) for name, value in result.items()}, flush=True)
    ratios = {
        f"diet_ray over {name}": results["diet_ray"]["rows_per_second"] / result["rows_per_second"]
        for name, result in results.items()
        if "diet_ray" in results and name != "diet_ray"
    }
    print({name: round(ratio, 2) for name, ratio in ratios.items()})
    whole = {"rows": options.rows, "cpus": os.cpu_count(), "results": results, "ratios": ratios}
    if options.out:
        options.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        contender, source, out, *names = sys.argv[2:]
        split = names.index("--")
        CONTENDERS[contender](source, out, names[:split], names[split + 1 :])
    else:
        main(tyro.cli(Options, description=__doc__))

"""Turn a raw log into encoded blocks: the first command anyone runs."""

import sys
from dataclasses import dataclass

from actors.connection import connect
from actors.data import RayMapper
from diet_ray.errors import ConfigError
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from diet_ray.log.prepare import prepare
from diet_ray.log.schema import load_schema
from diet_ray.storage import absolute
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import bars, console


@dataclass(frozen=True)
class Prepare:
    """Encode a raw log into the blocks of its schema.

    $ diet-ray prepare --dataset globo --source GLOBO_DIR --out data/globo

    $ diet-ray prepare --dataset myshop.yaml --source clicks.parquet --out data/myshop

    $ diet-ray prepare --dataset drift --out data/drift --drift.rows 1000000 --drift.kind abrupt

    Built in: globo, kuairand, tmall, taobao, as their publishers distribute them; drift is generated.
    """

    dataset: str
    """globo, kuairand, tmall, taobao, drift, or a YAML file that describes your log."""
    out: str
    """Directory of the prepared log; new, or the result of the same preparation."""
    source: str | None = None
    """The raw log: a file or a directory, local or any fsspec URL. drift needs none."""
    drift: DriftConfig = DriftConfig()

    def __call__(self) -> None:
        out = absolute(self.out)
        if self.dataset == "drift":
            if self.source is not None:
                raise ConfigError("--dataset drift generates its log; leave --source out")
            source, schema = write_drift_log(self.drift, out), drift_schema(self.drift)
        elif self.source is None:
            raise ConfigError(f"--dataset {self.dataset} needs --source, the raw log's file or directory")
        else:
            source, schema = absolute(self.source), load_schema(self.dataset)
        connect()
        with bars() as shown:
            log = prepare(schema, source, out, RayMapper(shown.follow))
        _tell(log, out)


def _tell(log: PreparedLog, out: str) -> None:
    for block in log.blocks.values():
        console.print(f"block {block.name}: {block.rows:,} rows, {_tables(log, block)}")
    for what, count in log.left_out.items():
        if count:
            console.print(f"[yellow]{count:,} rows {what}")
    console.print(f"{log.name}: {len(log.fields)} fields, {len(log.tasks)} tasks, prepared at {out}")


def _tables(log: PreparedLog, block: Block) -> str:
    largest = sorted(zip(block.table_rows, log.fields, strict=True), reverse=True)[:3]
    return ", ".join(f"{rows:,} rows of {field}" for rows, field in largest)


if __name__ == "__main__":
    sys.exit(run_command(Prepare, "diet-ray prepare"))

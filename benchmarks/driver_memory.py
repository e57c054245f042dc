"""How much memory the driver takes for a block, whatever its rows.

    $ python -m benchmarks.driver_memory --rows 50000000 --out docs/driver-memory.json

Rows are read by Ray Data, chosen and handed on as in a stage; only the numbers are faked: scorers (`Forged`)
give a row a score by its number instead of a forward pass, and embeddings of zeros. The files of the block
are the same one again and again. The peak is that of this process, the driver's, with all that it has loaded.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import tyro

from actors.block_source import from_table
from actors.restart import restartable
from actors.scorer import Scorer, ScorerPool
from benchmarks.scoring import FIELDS, TASKS, start_ray, write_log
from diet_ray.config import RunConfig
from diet_ray.distillation.boundary import boundary_rows, el2n_histogram
from diet_ray.distillation.pool import draw_pool
from diet_ray.distillation.row_choice import row_hash
from diet_ray.distillation.scored_rows import AlignedPart, EmbeddedRows, ScoredPart, Span
from diet_ray.log.dataset import Block, Part
from diet_ray.training.device import peak_bytes, reset_peak

FILE_ROWS = 250_000
EMBEDDED = 4  # numbers of an embedding; the driver has none of them


@dataclass(frozen=True)
class Options:
    rows: int = 50_000_000
    """Rows of the block."""
    scorers: int = 2
    ratio: float = 0.015
    """Rows that are selected, of those of the block."""
    out: Path | None = None
    """JSON file of the results."""


class Forged(Scorer):
    """Needs no checkpoint: scores are a hash of the row number."""

    def score(self, stage: int, span: Span, table: pa.Table | None = None) -> ScoredPart:
        even_N = self._even(1, table)
        group_N = (self._even(2, table) * 8).astype(np.int64)
        return ScoredPart(span.first, (even_N * 3**0.5).astype(np.float32), group_N)

    def align(self, stage: int, span: Span, directions: Any, table: pa.Table | None = None) -> AlignedPart:
        columns = [self._even(seed, table) - 0.5 for seed in (3, 4)]
        return AlignedPart(span.first, np.stack(columns, 1).astype(np.float32))

    def embed_table(self, stage: int, table: pa.Table) -> EmbeddedRows:
        _, chosen = from_table(table)
        rows = len(chosen.row_N)
        zeros = [np.zeros((rows, size), np.float32) for size in (EMBEDDED, len(TASKS), len(TASKS))]
        return EmbeddedRows(zeros[0][:, None], zeros[1], zeros[2], chosen.cell_N)

    @staticmethod
    def _even(seed: int, table: pa.Table | None) -> Any:
        assert table is not None
        _, numbers = from_table(table)
        return row_hash(seed, numbers.row_N) * 2.0**-64


def long_block(block: Block, rows: int) -> Block:
    """A block of `rows` rows, all of whose files are the one of `block`."""
    stamp, size = block.parts[0].stamp, block.parts[0].rows
    parts = tuple(Part(stamp, size, first) for first in range(0, rows, size))
    return block._replace(rows=size * len(parts), parts=parts)


def main(options: Options) -> None:
    config = RunConfig(reference={"name": "dcn", "ensemble": ("dcn",)})
    with tempfile.TemporaryDirectory() as folder:
        log = write_log(Path(folder), {"0001": FILE_ROWS})
        block = long_block(log.block(1), options.rows)
        start_ray(1_500_000_000)
        common = (folder, folder, config.model_dump(mode="json"), 1)
        scorers = [restartable(Forged).options(num_cpus=0).remote(*common) for _ in range(options.scorers)]
        before = resident()
        reset_peak()
        began = time.perf_counter()
        pool = ScorerPool(scorers, log, block, 1)
        histogram = el2n_histogram(pool)
        budget = round(options.ratio * block.rows)
        boundary = pool.embed(boundary_rows(pool, histogram, budget, config.method.boundary, 0))
        drawn = draw_pool(pool, 1, config, lambda: None)
        selected, hard = counted(boundary), counted(drawn.parts)
        seconds, peak = time.perf_counter() - began, peak_bytes()
    results = {
        "rows": block.rows,
        "fields": len(FIELDS),
        "parts": len(pool.spans),
        "selected": selected,
        "pool": hard,
        "seconds": round(seconds, 1),
        "driver before, MB": round(before / 1e6),
        "driver at its peak, MB": round(peak / 1e6),
    }
    print(json.dumps(results, indent=2))
    assert selected == budget and hard == config.pool_rows, "rows are missing"
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def counted(parts: Any) -> int:
    """Rows of the parts, counted where they lie."""
    count = ray.remote(num_cpus=0)(lambda part: len(part.cell_N))
    return sum(ray.get([count.remote(part) for part in parts]))


def resident() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main(tyro.cli(Options))

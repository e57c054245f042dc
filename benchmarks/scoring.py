"""How fast a block is scored through Ray Data and actors, beside the same forward pass on tensors in memory.

    $ python -m benchmarks.scoring --out docs/scoring.json

The same actors, with as many threads each, first run the forward pass (embed, predict, EL2N) over batches of
65,536 rows that they hold, then score a block of a generated log by way of Ray Data; in turn, several times.
The ratio is that of the medians of rows per second. `alignment` is the pass that finds hard rows (eq. 16)
beside the scoring of the same block. `small` has the seconds of a whole selection (scores, boundary rows,
pool) of a micro-block over actors and in this process.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
import tyro

from actors.data import quiet_data
from actors.restart import restartable
from actors.scorer import Scorer, ScorerPool
from diet_ray import layout
from diet_ray.config import MethodConfig, OuterConfig, ReferenceConfig, RunConfig
from diet_ray.distillation.addressing import ProxyDirection, proxy_directions
from diet_ray.distillation.boundary import boundary_rows, el2n_histogram
from diet_ray.distillation.el2n import el2n
from diet_ray.distillation.memory_update import block_influence, new_reference
from diet_ray.distillation.pool import draw_pool
from diet_ray.distillation.scored_rows import BATCH, BlockScorer, LocalScorer, PartScorer, Span
from diet_ray.log.dataset import FORMAT, MANIFEST, Block, Part, PreparedLog, plain_block
from diet_ray.models.examples import Examples, predict
from diet_ray.runs.state import RunState
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.writing import write_checkpoint as write_state
from diet_ray.training.embedding import embed_rows

FIELDS = tuple(f"field_{number}" for number in range(12))
TASKS, IDS, FILE_ROWS = ("click", "like", "buy"), 20_000, 250_000


@dataclass(frozen=True)
class Options:
    rows: int = 1_000_000
    """Rows of the block."""
    scorers: int = 2
    threads: int = 1
    """Of each scorer."""
    reference: str = "dcnv2"
    """Architecture; its options are the defaults."""
    dim: int = 32
    rounds: int = 3
    small: tuple[int, ...] = (300, 30_000)
    """Rows of the micro-blocks."""
    out: Path | None = None
    """JSON file of the results."""


class MeasuredScorer(Scorer):
    """Also runs the forward pass over batches that it holds."""

    def in_memory(self, stage: int, span: Span, rows: int) -> int:
        """Score `rows` rows, a batch of the block again and again; the batch was read before."""
        parts = self._at(stage)
        if not hasattr(self, "batch"):
            self.batch = parts.read(span)
        for _ in range(rows // BATCH):
            examples = embed_rows(parts.recommender, self.batch)
            el2n(predict(parts.recommender.dense, examples.emb_NFD), examples.label_NT).numpy()
        return rows // BATCH * BATCH


def start_ray(store_bytes: int) -> None:
    """Start a quiet Ray on this machine, whose object store does not depend on the machine's memory."""
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        object_store_memory=store_bytes,
        log_to_driver=False,
    )
    quiet_data()


def write_log(folder: Path, blocks: dict[str, int]) -> PreparedLog:
    """A prepared log of random ids; one block per name, of so many rows."""
    target, draw, written = Folder.at(str(folder)), np.random.default_rng(0), list[Block]()
    for number, (name, rows) in enumerate(blocks.items()):
        parts = list[Part]()
        for first in range(0, rows, FILE_ROWS):
            count = min(FILE_ROWS, rows - first)
            columns: dict[str, Any] = {
                field: pa.array(draw.integers(IDS, size=count, dtype=np.int32)) for field in FIELDS
            }
            columns |= {task: pa.array((draw.random(count) < 0.3).astype(np.uint8)) for task in TASKS}
            stamp = target.write_parquet(layout.block_part(name, len(parts)), pa.table(columns))
            parts.append(Part(stamp, count, first))
        table_rows = (IDS,) * len(FIELDS)
        written.append(Block(name, rows, number, number, table_rows, {0: rows}, tuple(parts)))
    manifest = {"format": FORMAT, "name": "bench", "fields": FIELDS, "tasks": TASKS, "outside": 0}
    manifest |= {"quarantined": 0, "blocks": [plain_block(block) for block in written]}
    target.write_json(MANIFEST, manifest)
    return PreparedLog.open(str(folder))


def write_checkpoints(state: RunState, stages: int) -> None:
    """A reference that has learned nothing, as the checkpoint of every stage."""
    reference = state.new_reference()
    reference.grow((IDS,) * len(FIELDS), torch.Generator().manual_seed(0))
    for stage in range(1, stages + 1):
        write_state(state.folder, stage, reference, [], every=1)


def directions(state: RunState) -> list[ProxyDirection]:
    draw = torch.Generator().manual_seed(0)
    dim = state.config.dim
    memory = Examples(
        torch.randn(2000, len(FIELDS), dim, generator=draw), torch.rand(2000, len(TASKS), generator=draw)
    )
    return proxy_directions(new_reference(state.log, state.config, "proxy", 0).members(), memory)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def select(scorer: BlockScorer, config: RunConfig, made: Any) -> None:
    """What a stage chooses from its block, until the rows are there."""
    histogram = el2n_histogram(scorer)
    budget = max(8, scorer.block.rows // 60)
    boundary = scorer.embed(boundary_rows(scorer, histogram, budget, config.method.boundary, 0))
    pool = draw_pool(scorer, 1, config, lambda: made)
    for part in (*boundary, *pool.parts):
        if isinstance(part, ray.ObjectRef):
            ray.get(part)


def main(options: Options) -> None:
    config = RunConfig(
        dim=options.dim,
        reference=ReferenceConfig(name=options.reference, ensemble=()),
        method=MethodConfig(outer=OuterConfig()),
    )
    blocks = {"0001": options.rows, **{f"small-{rows}": rows for rows in options.small}}
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        log = write_log(Path(folder) / "log", blocks)
        state = RunState(log, Folder.at(f"{folder}/run"), config)
        write_checkpoints(state, len(blocks))
        start_ray(600_000_000)
        common = (f"{folder}/log", f"{folder}/run", config.model_dump(mode="json"), options.threads)
        scorers = [
            restartable(MeasuredScorer).options(num_cpus=0).remote(*common) for _ in range(options.scorers)
        ]
        results = measured(options, state, scorers)
    print(json.dumps(results, indent=2))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def measured(options: Options, state: RunState, scorers: list[Any]) -> dict[str, Any]:
    block, made = state.log.block(1), directions(state)
    shared = ray.put(made)
    share = max(BATCH, options.rows // options.scorers)

    def in_memory() -> int:
        return sum(ray.get([s.in_memory.remote(1, Span(0, BATCH), share) for s in scorers]))

    def through_ray(align: bool = False) -> int:
        pool = ScorerPool(scorers, state.log, block, 1)
        columns = pool.align(shared) if align else pool.scores()
        ray.wait(columns, num_returns=len(columns), fetch_local=False)
        return block.rows

    ways: dict[str, Callable[[], int]] = {
        "in memory": in_memory,
        "through Ray Data": through_ray,
        "alignment": lambda: through_ray(align=True),
    }
    in_memory(), through_ray()  # what starts once: workers of Ray Data, checkpoints
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            rates[name].append(way() / (time.perf_counter() - began))
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "options": {**options.__dict__, "out": None},
        "rows per second": {name: [round(rate) for rate in values] for name, values in rates.items()},
        "ratio": median["through Ray Data"] / median["in memory"],
        "alignment, in passes of scoring": median["through Ray Data"] / median["alignment"],
        "small": small_blocks(options, state, scorers, made),
    }


def small_blocks(
    options: Options, state: RunState, scorers: list[Any], made: list[ProxyDirection]
) -> dict[str, Any]:
    influence = block_influence(state.log, state.config, made, torch.device("cpu"))
    results = {}
    for stage, rows in enumerate(options.small, start=2):
        block = state.log.block(stage)
        recommender = state.checkpoint(stage)

        def over_actors(block: Block = block, stage: int = stage) -> None:
            select(ScorerPool(scorers, state.log, block, stage), state.config, ray.put(made))

        def here(block: Block = block, recommender: Any = recommender) -> None:
            select(LocalScorer(PartScorer(recommender, state.log, block)), state.config, influence)

        over_actors()  # loads the checkpoint of the stage
        times = [(timed(over_actors), timed(here)) for _ in range(5)]
        actors_s, here_s = (statistics.median(column) for column in zip(*times, strict=True))
        results[str(rows)] = {"over actors, s": round(actors_s, 4), "in this process, s": round(here_s, 4)}
    return results


if __name__ == "__main__":
    main(tyro.cli(Options))

"""From a block's boundary rows and the memory before it to the memory after it.

Shape suffixes: N rows.
"""

from collections.abc import Callable, Iterator
from itertools import count, repeat
from typing import Any

import torch

from diet_ray.config import RunConfig
from diet_ray.distiller import Progress, distil
from diet_ray.examples import Examples, Params, dense_params, loss_of
from diet_ray.log.dataset import EncodedLog
from diet_ray.memory import Memory, MemorySchema, fuse
from diet_ray.models.ranking import RankingModel
from diet_ray.models.registry import build_model
from diet_ray.seeding import derived_seed, torch_generator


def memory_schema(log: EncodedLog, config: RunConfig) -> MemorySchema:
    return MemorySchema(log.fields, config.width, log.tasks)


def budget(config: RunConfig, history_rows: int) -> int:
    """Rows of memory after `history_rows` rows of history."""
    return round(config.ratio * history_rows)


def new_model(log: EncodedLog, config: RunConfig, *purpose: object) -> RankingModel:
    """A reference architecture with fresh parameters."""
    seed = derived_seed(config.seed, "model", *purpose)
    return build_model(
        config.reference, fields=len(log.fields), width=config.width, tasks=len(log.tasks), seed=seed
    )


def next_memory(
    stage: int,
    log: EncodedLog,
    config: RunConfig,
    *,
    rows: int,
    boundary: Memory,
    old: Memory | None,
    real: Examples,
    reference: RankingModel,
    previous: RankingModel | None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Memory:
    """Fuse and optimise: the memory of `stage`, at most `rows` rows.

    boundary: the new rows of this block (eqs. 8-9); real: a sample of its rows (Collected.targets).
    reference: checkpoint t, under which old rows are weighed (eq. 10).
    previous: checkpoint t-1, the proxy for t > 1; for t = 1 proxies are fresh at every addressing.
    All of them are on one device, where the work is done.
    """
    device = boundary.emb_NFD.device
    memory = boundary
    if old is not None and config.method.boundary.fusion:
        keep = rows - boundary.rows
        memory = fuse(loss_of(reference), dense_params(reference), new=boundary, old=old, keep=keep)
    proxy = previous or new_model(log, config, "proxy").to(device)
    proxies = repeat(dense_params(proxy)) if previous else _fresh(log, config, device)
    draw = torch_generator(config.seed, "distil", stage)
    return distil(loss_of(proxy), proxies, memory, real, config.method, draw, report)


def _fresh(log: EncodedLog, config: RunConfig, device: torch.device) -> Iterator[Params]:
    return (dense_params(new_model(log, config, "proxy", number).to(device)) for number in count())


def composition(memory: Memory, before: Memory | None) -> dict[str, Any]:
    """What a memory is made of, for the commit record."""
    born, rows = torch.unique(memory.stage_N, return_counts=True)
    groups, of_group = torch.unique(memory.group_N, return_counts=True)
    found = {
        "rows": memory.rows,
        "rows_by_stage": dict(zip(map(str, born.tolist()), rows.tolist(), strict=True)),
        "rows_by_label_group": dict(zip(map(str, groups.tolist()), of_group.tolist(), strict=True)),
    }
    return found | ({"rows_before": before.rows} if before else {})

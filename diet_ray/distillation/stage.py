"""From a block's boundary rows and the memory before it to the memory after it.

Shape suffixes: N rows.
"""

from collections.abc import Callable, Iterator
from itertools import count, cycle
from typing import Any

import torch

from diet_ray.config import RunConfig
from diet_ray.distillation.distiller import Progress, Proxy, distil
from diet_ray.distillation.memory import Memory, MemorySchema, fuse
from diet_ray.distillation.realignment import affine_maps, carried
from diet_ray.log.dataset import EncodedLog
from diet_ray.models.base import DenseModel
from diet_ray.models.ensemble import Ensemble
from diet_ray.models.examples import Examples, dense_params, loss_of
from diet_ray.models.registry import build_model
from diet_ray.seeding import derived_seed, numpy_generator, torch_generator
from diet_ray.training.learning import embedded, sampled
from diet_ray.training.recommender import Recommender

CARRIED_BY_ROWS = 16_384  # of the block before, that show how the tables moved


def memory_schema(log: EncodedLog, config: RunConfig) -> MemorySchema:
    return MemorySchema(log.fields, config.dim, log.tasks)


def budget(config: RunConfig, history_rows: int) -> int:
    """Rows of memory after `history_rows` rows of history."""
    return round(config.ratio * history_rows)


def new_reference(log: EncodedLog, config: RunConfig, *purpose: object) -> Ensemble:
    """The dense part of a reference with fresh parameters."""
    shape = {"fields": len(log.fields), "dim": config.dim, "tasks": len(log.tasks)}
    members = [
        build_model(member, **shape, seed=derived_seed(config.seed, "model", *purpose, number))
        for number, member in enumerate(config.reference.members())
    ]
    return Ensemble(members)


def next_memory(
    stage: int,
    log: EncodedLog,
    config: RunConfig,
    *,
    rows: int,
    boundary: Memory,
    old: Memory | None,
    real: Examples,
    reference: Recommender,
    previous: Recommender | None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Memory:
    """Fuse and optimise: the memory of `stage`, at most `rows` rows.

    boundary: the new rows of this block (eqs. 8-9); real: a sample of its rows (Collected.targets).
    reference: checkpoint t, into whose space old rows are carried and under which they are weighed (eq. 10).
    previous: checkpoint t-1, whose members take turns as the proxy for t > 1; for t = 1 proxies are fresh at
        every addressing.
    All of them are on one device, where the work is done.
    """
    device = boundary.emb_NFD.device
    memory = boundary
    if old is not None and previous is not None and config.method.boundary.fusion:
        if config.method.boundary.realign:
            old = _carried(old, stage, log, config, previous, reference)
        judge, keep = reference.dense, rows - boundary.rows
        memory = fuse(loss_of(judge), dense_params(judge), new=boundary, old=old, keep=keep)
    proxies = cycle(_proxies(previous.dense)) if previous else _fresh(log, config, device)
    draw = torch_generator(config.seed, "distil", stage)
    return distil(proxies, memory, real, config.method, draw, report)


def _carried(
    old: Memory,
    stage: int,
    log: EncodedLog,
    config: RunConfig,
    previous: Recommender,
    reference: Recommender,
) -> Memory:
    """The memory of the stage before in the space of `reference`."""
    draw = numpy_generator(config.seed, "carry", stage)
    rows = sampled(log, log.block(stage - 1), CARRIED_BY_ROWS, draw)
    before, after = embedded(previous, rows), embedded(reference, rows)
    return carried(old, affine_maps(before.emb_NFD, after.emb_NFD), previous.dense, reference.dense)


def _proxies(model: DenseModel) -> Iterator[Proxy]:
    return (Proxy(loss_of(member), dense_params(member)) for member in model.members())


def _fresh(log: EncodedLog, config: RunConfig, device: torch.device) -> Iterator[Proxy]:
    for number in count():
        yield from _proxies(new_reference(log, config, "proxy", number).to(device))


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

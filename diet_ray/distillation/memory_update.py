"""From a block's boundary rows and the memory before it to the memory after it.

Shape suffixes: N rows.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle

import torch

from diet_ray.config import RunConfig
from diet_ray.distillation.addressing import BlockInfluence, ProxyDirection
from diet_ray.distillation.distiller import Progress, Proxy, optimise_memory
from diet_ray.distillation.memory import Memory, fuse
from diet_ray.distillation.realignment import affine_maps, realign
from diet_ray.log.dataset import EncodedLog
from diet_ray.memory_schema import MemorySchema
from diet_ray.models.base import DenseModel
from diet_ray.models.derivatives import check_reference_model
from diet_ray.models.ensemble import Ensemble
from diet_ray.models.examples import Examples, dense_params, loss_of
from diet_ray.models.registry import build_model
from diet_ray.seeding import derived_seed, numpy_generator, torch_generator
from diet_ray.training.embedding import Embedder, embed_rows, sample_rows

REALIGNED_BY_ROWS = 16_384  # of the block before, on which the maps between embedding spaces are fitted


def memory_schema(log: EncodedLog, config: RunConfig) -> MemorySchema:
    return MemorySchema(log.fields, config.dim, log.tasks)


def memory_rows(config: RunConfig, history_rows: int) -> int:
    """Rows of memory after `history_rows` rows of history."""
    return round(config.ratio * history_rows)


def check_reference(config: RunConfig, *, fields: int, tasks: int) -> None:
    """Try each model of the reference on a small batch, before a run is created.

    Raises:
        ConfigError: naming the model that cannot be built, or lacks a derivative that the method takes.
    """
    for member in config.reference.members():
        check_reference_model(member, fields=fields, dim=config.dim, tasks=tasks)


def new_reference(log: EncodedLog, config: RunConfig, *purpose: object) -> Ensemble:
    """The dense part of a reference with the initial weights of the run's seed and a purpose."""
    members = [
        build_model(
            member,
            fields=len(log.fields),
            dim=config.dim,
            tasks=len(log.tasks),
            seed=derived_seed(config.seed, "model", *purpose, number),
        )
        for number, member in enumerate(config.reference.members())
    ]
    return Ensemble(members)


def realigned_memory(
    old: Memory | None,
    stage: int,
    log: EncodedLog,
    config: RunConfig,
    *,
    previous: Embedder | None,
    reference: Embedder,
) -> Memory | None:
    """The memory of the stage before in the embedding space of `reference`; None where none is kept."""
    if old is None or previous is None or not config.method.boundary.fusion:
        return None
    if not config.method.boundary.realign:
        return old
    draw = numpy_generator(config.seed, "carry", stage)  # the name that runs of version 0.1 drew by
    rows = sample_rows(log, log.block(stage - 1), REALIGNED_BY_ROWS, draw)
    before, after = embed_rows(previous, rows), embed_rows(reference, rows)
    return realign(old, affine_maps(before.emb_NFD, after.emb_NFD), previous.dense, reference.dense)


def fused_memory(
    boundary: Memory,
    old: Memory | None,
    reference: Embedder,
    *,
    rows: int,
    weight_N: torch.Tensor | None = None,
) -> Memory:
    """The boundary rows and, up to `rows`, the old rows that influence them most (eqs. 10-11).

    Args:
        boundary: the new rows of this block (eqs. 8-9).
        old: realigned.
        reference: checkpoint t, under which old rows are weighed.
        rows: of the result, at most.
        weight_N: the weights of the old rows, where they are known already.
    """
    if old is None:
        return boundary
    judge = reference.dense
    loss, params = loss_of(judge), dense_params(judge)
    return fuse(loss, params, new=boundary, old=old, keep=rows - boundary.rows, weight_N=weight_N)


def first_proxies(
    log: EncodedLog, config: RunConfig, previous: Embedder | None, device: torch.device
) -> list[DenseModel]:
    """The proxies of a stage's first addressings, one per member of the reference.

    For t > 1 the members of checkpoint t-1, which take turns as long as the stage lasts; for t = 1 models
    with fresh weights, after which others follow.
    """
    dense = previous.dense if previous else new_reference(log, config, "proxy", 0).to(device)
    return dense.members()


def block_influence(
    log: EncodedLog, config: RunConfig, directions: Sequence[ProxyDirection], device: torch.device
) -> BlockInfluence:
    """What aligns rows with directions, in a process that has only these."""
    return BlockInfluence(new_reference(log, config, "reference").members(), directions, device)


def optimised_memory(
    stage: int,
    log: EncodedLog,
    config: RunConfig,
    memory: Memory,
    real: Examples,
    weight_N: torch.Tensor | None,
    previous: Embedder | None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Memory:
    """Optimise a fused memory: the memory of `stage`. All tensors are on one device.

    Args:
        stage: number of the stage, from 1.
        log: the log of the block.
        config: of the run.
        memory: of `fused_memory`.
        real: the pool of the block's rows, from which targets are taken.
        weight_N: rows of the block that each of them stands for; all alike where it is None.
        previous: checkpoint t-1, whose members take turns as the proxy for t > 1; for t = 1 every addressing
            has a proxy with fresh weights.
        report: called after every outer iteration.
    """
    device = memory.emb_NFD.device
    proxies = cycle(_proxies(previous.dense)) if previous else _fresh_proxies(log, config, device)
    draw = torch_generator(config.seed, "distil", stage)  # the name that runs of version 0.1 drew by
    return optimise_memory(proxies, memory, real, config.method, draw, report, weight_N)


def _proxies(model: DenseModel) -> Iterator[Proxy]:
    return (Proxy(loss_of(member), dense_params(member)) for member in model.members())


def _fresh_proxies(log: EncodedLog, config: RunConfig, device: torch.device) -> Iterator[Proxy]:
    for number in count():
        yield from _proxies(new_reference(log, config, "proxy", number).to(device))

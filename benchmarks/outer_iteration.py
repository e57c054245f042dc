"""Does an outer iteration cost the same whatever the rows of the memory?

    $ python benchmarks/outer_iteration.py --out outer.json

Ratios of seconds per iteration to those with the smallest memory, in one process; the active rows and the
targets are the same. `dense` is the iteration that differentiates in the whole memory, as it was once
written, for comparison.
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from diet_ray.config import ModelConfig
from diet_ray.distillation.outer import OuterOptimiser
from diet_ray.distillation.unroll import Adam, MetaGradient, inner_loop, meta_gradient
from diet_ray.models.examples import Examples, LossPerExample, Params, dense_params, loss_of
from diet_ray.models.registry import build_model

FIELDS, DIM, TASKS = 12, 16, 3
STEPS, BATCH, WINDOW, TARGETS = 10, 256, 5, 512
ROUNDS = 5


@dataclass(frozen=True)
class Options:
    rows: tuple[int, ...] = (5_000, 50_000, 150_000, 1_000_000)
    """Rows of the memories."""
    out: Path | None = None
    """JSON file of the results."""


def dense_meta_gradient(
    loss: LossPerExample,
    params: Params,
    emb: torch.Tensor,
    logit: torch.Tensor,
    order: torch.Tensor,
    targets: Examples,
) -> MetaGradient:
    """The gradient in every row of the memory, of which those outside the window are dropped."""
    emb, logit = emb.detach().clone().requires_grad_(), logit.detach().clone().requires_grad_()
    examples = Examples(emb, logit.sigmoid())
    final = inner_loop(loss, params, examples, order, Adam(1e-3), untracked=STEPS - WINDOW)
    outer = loss(final, targets).mean()
    emb_grad, logit_grad = torch.autograd.grad(outer, (emb, logit))
    rows = order[STEPS - WINDOW :].unique()
    return MetaGradient(rows, emb_grad[rows], logit_grad[rows], outer.item())


def seconds(rows: int, kind: str) -> float:
    """Median seconds of an outer iteration on a memory of `rows` rows."""
    draw = torch.Generator().manual_seed(0)
    config = ModelConfig(name="dcn", options={"hidden": (128, 64)})
    model = build_model(config, fields=FIELDS, dim=DIM, tasks=TASKS, seed=0)
    loss, params = loss_of(model), dense_params(model)
    emb = torch.randn(rows, FIELDS, DIM, generator=draw) / 10
    optimiser = OuterOptimiser(
        emb, torch.randn(rows, TASKS, generator=draw), embedding_rate=1e-4, logit_rate=1e-3
    )
    targets = Examples(
        torch.randn(TARGETS, FIELDS, DIM, generator=draw) / 10, torch.rand(TARGETS, TASKS, generator=draw)
    )
    taken = []
    for _ in range(ROUNDS + 1):
        order = torch.randperm(rows, generator=draw)[: STEPS * BATCH].view(STEPS, BATCH)
        started = time.perf_counter()
        if kind == "dense":
            gradient = dense_meta_gradient(
                loss, params, optimiser.emb_NFD, optimiser.logit_NT, order, targets
            )
        else:
            gradient = meta_gradient(
                loss,
                params,
                emb_NFD=optimiser.emb_NFD,
                logit_NT=optimiser.logit_NT,
                order_SB=order,
                window=WINDOW,
                optimiser=Adam(1e-3),
                targets=targets,
            )
        optimiser.step(gradient)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main(options: Options) -> None:
    torch.set_num_threads(1)
    results = {}
    for kind in ("gathered", "dense"):
        by_rows = {rows: seconds(rows, kind) for rows in options.rows}
        smallest = by_rows[min(options.rows)]
        results[kind] = {str(rows): {"seconds": s, "ratio": s / smallest} for rows, s in by_rows.items()}
        for rows, s in by_rows.items():
            print(f"{kind:9} {rows:>9,} rows: {s / smallest:5.2f} x ({s:.3f} s)")
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))

"""Is it faster to train several seeds of one candidate together by torch.func.vmap than one after another?

    $ python benchmarks/trials_together.py --out together.json

The same steps of Adam, on the same batches, by a loop over models and by one vmap over their stacked
parameters, in one thread (or on the GPU where there is one). A ratio above 1 says that vmap is faster.
Takes a minute.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from diet_ray.config import CandidateConfig
from diet_ray.models.examples import example_loss, predict
from diet_ray.training.candidate_setup import new_candidate
from diet_ray.training.device import default_device

FIELDS, DIM, TASKS = 12, 32, 3
Batch = tuple[Tensor, Tensor]
Train = Callable[[list[nn.Module], list[Batch]], None]
SIZES = {"small": [32], "medium": [256, 128], "published": [1024, 512, 256]}


@dataclass(frozen=True)
class Options:
    seeds: tuple[int, ...] = (2, 4, 8)
    """Models trained together."""
    batch: int = 256
    steps: int = 20
    out: Path | None = None
    """JSON file of the result."""


def batches(options: Options, device: str) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    shape = (options.batch, FIELDS, DIM)
    return [
        (
            (torch.randn(shape, generator=draw) * 0.03).to(device),
            torch.rand(options.batch, TASKS, generator=draw).to(device),
        )
        for _ in range(options.steps)
    ]


def one_after_another(models: list[nn.Module], rows: list[Batch]) -> None:
    for model in models:
        optimiser = torch.optim.Adam(model.parameters())
        for emb_NFD, label_NT in rows:
            optimiser.zero_grad()
            example_loss(model(emb_NFD), label_NT).mean().backward()
            optimiser.step()


def together(models: list[nn.Module], rows: list[Batch]) -> None:
    params, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")
    optimiser = torch.optim.Adam(params.values())

    def loss(own: dict[str, Tensor], state: dict[str, Tensor], emb_NFD: Tensor, label_NT: Tensor) -> Tensor:
        return example_loss(functional_call(base, (own, state), (emb_NFD,)), label_NT).mean()

    for emb_NFD, label_NT in rows:
        optimiser.zero_grad()
        # The sum over models gives each its own gradient.
        vmap(loss, in_dims=(0, 0, None, None))(params, buffers, emb_NFD, label_NT).sum().backward()
        optimiser.step()
    for number, model in enumerate(models):
        model.load_state_dict({name: part[number].detach() for name, part in params.items()})


def seconds(train: Train, models: list[nn.Module], rows: list[Batch], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    train(models, rows)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def apart(models: list[nn.Module], rows: list[Batch]) -> float:
    """Largest difference of logits after two steps (which warm both ways up; later, Adam's steps where a
    gradient is nought up to rounding set the two ways apart)."""
    mine, its = copy.deepcopy(models), copy.deepcopy(models)
    one_after_another(mine, rows[:2])
    together(its, rows[:2])
    emb_NFD = rows[0][0]
    pairs = zip(mine, its, strict=True)
    return max(float((predict(a, emb_NFD) - predict(b, emb_NFD)).abs().max()) for a, b in pairs)


def main(options: Options) -> None:
    torch.set_num_threads(1)
    device = default_device()
    rows = batches(options, device)
    found = []
    for size, hidden in SIZES.items():
        candidate = CandidateConfig(name="dcn", options={"hidden": hidden})
        for seeds in options.seeds:
            models = [
                new_candidate(candidate, seed, fields=FIELDS, dim=DIM, tasks=TASKS).to(device)
                for seed in range(seeds)
            ]
            difference = apart(models, rows)
            assert difference < 1e-3, f"logits of the two ways differ by {difference}"
            slow = seconds(one_after_another, copy.deepcopy(models), rows, device)
            fast = seconds(together, copy.deepcopy(models), rows, device)
            found.append(
                {"size": size, "seeds": seeds, "ratio": slow / fast, "device": device, "apart": difference}
            )
            print(
                f"DCN {size}, {seeds} seeds, {device}: x {slow / fast:.2f} "
                f"(logits differ by {difference:.0e})"
            )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

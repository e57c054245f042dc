"""What do derivatives of each row's loss along directions cost, next to other ways to the same numbers?

    $ python benchmarks/influence.py --out docs/influence-speed.json
    $ python benchmarks/influence.py --models dcn --few 2 --dattri VENV/lib/python3.11/site-packages

CPU seconds per row in one process on one thread, medians of repeats that take turns, as ratios to a forward
pass without a graph. Where per-example gradients are formed, fewer rows fill the memory; they are timed on
`few` rows. Checks first that all ways agree.

Shape suffixes: N rows.
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from diet_ray.config import ModelConfig
from diet_ray.distillation.influence import alignments, by_forward_mode, direction
from diet_ray.models.examples import Examples, Params, dense_params, example_loss, loss_of
from diet_ray.models.registry import ARCHITECTURES, build_model

FIELDS, DIM, TASKS = 12, 32, 3
FURTHER = 4  # directions beyond the first


@dataclass(frozen=True)
class Options:
    models: tuple[str, ...] = tuple(ARCHITECTURES)
    """Architectures with their default sizes."""
    rows: int = 512
    """Target rows, and rows per pass."""
    few: int = 8
    """Target and source rows where gradients of single rows are formed."""
    repeats: int = 7
    """Of ways that take all target rows."""
    slow_repeats: int = 1
    """Of ways that form gradients of single rows."""
    dattri: Path | None = None
    """Folder in which dattri 0.3 is installed; without one it is left out."""
    out: Path | None = None
    """JSON file of the results."""


def examples(rows: int, seed: int) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    emb_NFD = torch.randn(rows, FIELDS, DIM, generator=draw) / 10
    return Examples(emb_NFD, (torch.rand(rows, TASKS, generator=draw) < 0.3).float())


def per_sample(model: nn.Module, rows: Examples, along: Params) -> Tensor:
    """`vmap(grad)`, then the inner product."""
    loss = loss_of(model)

    def one(p: Params, emb_FD: Tensor, label_T: Tensor) -> Tensor:
        return loss(p, Examples(emb_FD[None], label_T[None]))[0]

    gradients = vmap(grad(one), in_dims=(None, 0, 0))(dense_params(model), *rows)
    return sum(g.flatten(1) @ along[name].flatten() for name, g in gradients.items())  # type: ignore


class Ghost:
    """The ghost dot product (arXiv 2406.11011) by hooks on linear layers: what a layer takes, and its signal.

    `pairwise` multiplies <a_i, a_j> <g_i, g_j> over all pairs of target and source; otherwise the direction
    is the sum over the sources. Parameters of other layers, under 1 % of all, are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.count = copy.deepcopy(model).eval(), 0
        self.taken: dict[str, Tensor] = {}
        self.put: dict[str, Tensor] = {}
        for name, layer in self.model.named_modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., None]:
        def keep(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            if inputs[0].shape[0] == self.count:  # not the constants of FinalMLP's gates
                self.taken[name], self.put[name] = inputs[0].detach(), output

        return keep

    def signals(self, rows: Examples) -> dict[str, tuple[Tensor, Tensor]]:
        self.count, self.taken, self.put = rows.rows, {}, {}
        total = example_loss(self.model(rows.emb_NFD), rows.label_NT).sum()
        found = torch.autograd.grad(total, list(self.put.values()))
        return {name: (self.taken[name], g) for name, g in zip(self.put, found, strict=True)}

    def summed(self, targets: Examples, along: Params) -> Tensor:
        total_N = torch.zeros(targets.rows)
        for name, (taken, signal) in self.signals(targets).items():
            moved = taken @ along[f"{name}.weight"].T
            if f"{name}.bias" in along:
                moved = moved + along[f"{name}.bias"]
            total_N += (moved * signal).flatten(1).sum(1)
        return total_N

    def pairwise(self, targets: Examples, sources: Examples) -> Tensor:
        total_N, of_sources = torch.zeros(targets.rows), self.signals(sources)
        for name, (taken, signal) in self.signals(targets).items():
            source, source_signal = of_sources[name]
            if taken.dim() == 2:
                total_N += ((taken @ source.T + 1) * (signal @ source_signal.T)).sum(1)
            else:  # gradients of few weights are formed, as the method's authors advise for such layers
                weight = torch.einsum("mdi,mdo->oi", source, source_signal)
                total_N += torch.einsum("ndi,oi,ndo->n", taken, weight, signal)
        return total_N


def by_dattri(folder: Path, model: nn.Module, sources: Examples, targets: Examples) -> Callable[[], Tensor]:
    """dattri's TracIn with one checkpoint: inner products of per-example gradients, summed over sources."""
    sys.path.append(str(folder))
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask

    def loss(p: Params, row: tuple[Tensor, Tensor]) -> Tensor:
        logit_NT = functional_call(model, p, (row[0][None],))
        return example_loss(logit_NT, row[1][None])[0]

    task = AttributionTask(loss_func=loss, model=model, checkpoints=[model.state_dict()])
    attributor = TracInAttributor(task=task, weight_list=torch.ones(1), normalized_grad=False, device="cpu")
    attributor.projector_kwargs = None  # its default projects at random to 512 dimensions

    def loader(rows: Examples) -> Any:
        data = torch.utils.data.TensorDataset(*rows)
        return torch.utils.data.DataLoader(data, batch_size=rows.rows)

    return lambda: attributor.attribute(loader(sources), loader(targets)).sum(0)


def ways(name: str, options: Options) -> dict[str, tuple[Callable[[], Tensor], int]]:
    """What is timed: a call and its target rows."""
    config = ModelConfig(name=name)
    model = build_model(config, fields=FIELDS, dim=DIM, tasks=TASKS, seed=0).eval()
    loss, params, ghost = loss_of(model), dense_params(model), Ghost(model)
    targets, sources = examples(options.rows, 1), examples(options.rows, 2)
    few, few_sources = targets.take(slice(0, options.few)), sources.take(slice(0, options.few))
    along = [direction(loss, params, sources)] + [
        {key: torch.randn_like(p) for key, p in params.items()} for _ in range(FURTHER)
    ]
    size = options.rows

    def forward() -> Tensor:
        with torch.no_grad():
            return loss(params, targets)

    timed: dict[str, tuple[Callable[[], Tensor], int]] = {
        "forward": (forward, size),
        "one": (lambda: alignments(loss, params, targets, along[:1], size), size),
        "several": (lambda: alignments(loss, params, targets, along, size), size),
        "forward mode": (lambda: by_forward_mode(loss, params, targets, along[:1]), size),
        "ghost, summed direction": (lambda: ghost.summed(targets, along[0]), size),
        "ghost, pairs": (lambda: ghost.pairwise(targets, sources), size),
        "vmap(grad)": (lambda: per_sample(model, few, along[0]), options.few),
    }
    if options.dattri:
        timed["dattri"] = (by_dattri(options.dattri, model, few_sources, few), options.few)
    return timed


def measure(name: str, options: Options) -> dict[str, float]:
    """CPU seconds per row as ratios to `forward`."""
    timed = ways(name, options)
    exact_N = timed["one"][0]()[:, 0]
    for way in ("forward mode", "vmap(grad)"):
        result_N = timed[way][0]().flatten()
        torch.testing.assert_close(
            result_N, exact_N[: len(result_N)], rtol=1e-3, atol=1e-3 * exact_N.std().item()
        )
    taken: dict[str, list[float]] = {way: [] for way in timed}
    for repeat in range(options.repeats):
        for way, (call, rows) in timed.items():
            if rows == options.few and repeat >= options.slow_repeats:
                continue
            started = time.process_time()
            call()
            taken[way].append((time.process_time() - started) / rows)
    seconds = {way: statistics.median(values) for way, values in taken.items()}
    seconds["each further"] = (seconds.pop("several") - seconds["one"]) / FURTHER
    ratios = {way: value / seconds["forward"] for way, value in seconds.items()}
    return {**ratios, "microseconds per row of forward": 1e6 * seconds["forward"]}


def main(options: Options) -> None:
    torch.set_num_threads(1)
    results = {}
    for name in options.models:
        results[name] = measure(name, options)
        print(name, {way: round(value, 2) for way, value in results[name].items()}, flush=True)
        if options.out:
            shown = {"rows": options.rows, "few": options.few, "repeats": options.repeats}
            options.out.write_text(json.dumps({**shown, "ratios": results}, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))

"""A small smooth network and random examples in float64, for checking derivatives."""

import torch
from torch import nn

from diet_ray.models.examples import Examples

FIELDS, DIM, TASKS = 3, 4, 2


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Flatten(), nn.Linear(FIELDS * DIM, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, TASKS)
        return nn.Sequential(*layers).double().eval()


def examples(rows: int, seed: int = 0) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    emb_NFD = torch.randn(rows, FIELDS, DIM, generator=draw, dtype=torch.float64)
    return Examples(emb_NFD, (torch.rand(rows, TASKS, generator=draw) < 0.4).double())

"""Multi-gate mixture of experts (Ma et al., KDD 2018): the head every architecture shares.

Shape suffixes: N rows, H hidden width, E experts, O expert output, T tasks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diet_ray.models.mlp import mlp


class MMoE(nn.Module):
    """Experts shared by the tasks, one softmax gate and one tower per task; [N, H] -> logits [N, T]."""

    def __init__(
        self,
        inputs: int,
        tasks: int,
        *,
        experts: int = 4,
        expert_hidden: Sequence[int] = (128, 64),
        gate_hidden: Sequence[int] = (),
        tower_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(mlp(inputs, expert_hidden) for _ in range(experts))
        self.gates = nn.ModuleList(_scored(inputs, gate_hidden, experts) for _ in range(tasks))
        self.towers = nn.ModuleList(_scored(expert_hidden[-1], tower_hidden, 1) for _ in range(tasks))

    def forward(self, hidden_NH: Tensor) -> Tensor:
        expert_NEO = torch.stack([expert(hidden_NH) for expert in self.experts], 1)
        logits = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            gate_NE = gate(hidden_NH).softmax(1)
            logits.append(tower(torch.einsum("ne,neo->no", gate_NE, expert_NEO)))
        return torch.cat(logits, 1)


def _scored(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """An MLP that ends in a Linear."""
    return nn.Sequential(mlp(inputs, hidden), nn.Linear([inputs, *hidden][-1], outputs))

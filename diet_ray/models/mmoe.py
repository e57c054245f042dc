"""Multi-gate mixture of experts (Ma et al., KDD 2018): the head every architecture shares.

Shape suffixes: N rows, H hidden width, E experts, O expert output, T tasks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diet_ray.models.mlp import mlp


class MMoE(nn.Module):
    """logit_t = tower_t(sum_e softmax(gate_t(h))_e expert_e(h)); [N, H] -> logits [N, T].

    The experts are shared by the tasks; each task has its own gate and tower.

    Args:
        inputs: H.
        tasks: T.
        experts: E.
        expert_hidden: Layer widths of each expert, at least one.
        gate_hidden: Layer widths of each gate below its softmax; none: a linear gate.
        tower_hidden: Layer widths of each tower below its logit.
    """

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
        self.gates = nn.ModuleList(_mlp_with_output(inputs, gate_hidden, experts) for _ in range(tasks))
        self.towers = nn.ModuleList(
            _mlp_with_output(expert_hidden[-1], tower_hidden, 1) for _ in range(tasks)
        )

    def forward(self, hidden_NH: Tensor) -> Tensor:
        expert_NEO = torch.stack([expert(hidden_NH) for expert in self.experts], 1)
        logits = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            gate_NE = gate(hidden_NH).softmax(1)
            logits.append(tower(torch.einsum("ne,neo->no", gate_NE, expert_NEO)))
        return torch.cat(logits, 1)


def _mlp_with_output(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """An MLP that ends in a Linear; [N, inputs] -> [N, outputs]."""
    return nn.Sequential(mlp(inputs, hidden), nn.Linear([inputs, *hidden][-1], outputs))

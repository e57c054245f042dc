"""A stack of Linear and ReLU, the building block of every architecture here."""

from collections.abc import Sequence

from torch import nn


def mlp(inputs: int, hidden: Sequence[int], *, layer_norm: bool = False) -> nn.Sequential:
    """[N, inputs] -> [N, hidden[-1]]; each Linear is followed by an optional LayerNorm and a ReLU.

    Without hidden layers it is the identity.
    """
    layers: list[nn.Module] = []
    for outputs in hidden:
        layers.append(nn.Linear(inputs, outputs))
        if layer_norm:
            layers.append(nn.LayerNorm(outputs))
        layers.append(nn.ReLU())
        inputs = outputs
    return nn.Sequential(*layers)

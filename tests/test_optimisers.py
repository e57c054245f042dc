"""The optimisers without torch's compiler: the same steps, and no import of it."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from diet_ray.training import optimisers

ALONE = """
import sys
import torch
from diet_ray.training.optimisers import Adam, SparseAdam
dense, table = torch.nn.Linear(2, 1), torch.nn.Embedding(4, 2, sparse=True)
learning = Adam(dense.parameters()), SparseAdam(table.parameters())
for _ in range(2):
    dense(table(torch.tensor([1, 3]))).sum().backward()
    for optimiser in learning:
        optimiser.step()
        optimiser.zero_grad()
        optimiser.load_state_dict(optimiser.state_dict())
assert "torch._dynamo" not in sys.modules
"""


def test_no_step_imports_the_compiler() -> None:
    """Every worker would wait two seconds for it."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("name", ["Adam", "SparseAdam"])
def test_the_steps_are_those_of_torch(name: str) -> None:
    """Weights and state after three steps, the last one with a parameter added and the state loaded."""

    def trained(module: object) -> torch.Tensor:
        torch.manual_seed(0)
        tables = [nn.Embedding(6, 3, sparse=name == "SparseAdam") for _ in range(2)]
        optimiser = getattr(module, name)(tables[0].parameters(), lr=0.1)
        for step in range(3):
            if step == 2:
                optimiser.add_param_group({"params": list(tables[1].parameters()), "lr": 0.01})
                optimiser.load_state_dict(optimiser.state_dict())
            optimiser.zero_grad()
            sum(table(torch.tensor([step, step + 1, 5])).pow(2).sum() for table in tables).backward()
            optimiser.step()
        state = [
            s[key] for s in optimiser.state_dict()["state"].values() for key in ("exp_avg", "exp_avg_sq")
        ]
        return torch.stack([*(table.weight.detach() for table in tables), *state])

    assert torch.equal(trained(optimisers), trained(torch.optim))

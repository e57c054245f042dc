"""The optimisers of torch without its compiler.

At their first call those of torch.optim import torch._dynamo (and SymPy, ONNX, Inductor: two CPU seconds,
a third of what a worker takes to start) to keep a compiler from tracing them. Nothing is compiled here, so
their methods are taken without those wrappers; what they compute is the same, bit for bit.
"""

from inspect import unwrap

import torch
from torch.optim import Optimizer


class _Eager(Optimizer):
    """The methods of every optimiser, without wrappers."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)


class Adam(_Eager, torch.optim.Adam):
    """torch.optim.Adam."""

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class SparseAdam(_Eager, torch.optim.SparseAdam):
    """torch.optim.SparseAdam."""

"""Batch norms whose statistics are those of the whole batch, of which each process has a part.

torch's own SyncBatchNorm runs on CUDA alone.

Shape suffixes: C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diet_ray.training.parallel.peers import Peers


class SharedBatchNorm(_BatchNorm):
    """A batch norm that takes the place of another; it learns with its peers, and scores alone."""

    @classmethod
    def like(cls, other: _BatchNorm, peers: Peers) -> "SharedBatchNorm":
        shared = cls(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)
        shared.weight, shared.bias = other.weight, other.bias
        for name, buffer in other.named_buffers(recurse=False):
            shared.register_buffer(name, buffer)
        shared.training, shared.peers = other.training, peers
        return shared

    peers: Peers

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        rows = input.new_tensor(float(input.numel() // input.shape[1]))
        total = _Sum.apply(torch.cat([input.sum(dims), rows[None]]), self.peers)
        count, mean_C = total[-1], total[:-1] / total[-1]
        centred = input - mean_C.view(shape)
        var_C = _Sum.apply((centred * centred).sum(dims), self.peers) / count
        self._follow(mean_C.detach(), var_C.detach(), count.detach())
        normal = centred * torch.rsqrt(var_C + self.eps).view(shape)
        return normal * self.weight.view(shape) + self.bias.view(shape) if self.affine else normal

    def _follow(self, mean_C: Tensor, var_C: Tensor, count: Tensor) -> None:
        """Move the running statistics as torch does; its running variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, rate)
        self.running_var.lerp_(var_C * (count / (count - 1)), rate)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, peers: Peers) -> Tensor:  # type: ignore[override]
        ctx.peers = peers
        return peers.sum(value.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.peers.sum(gradient.clone()), None


def share_batch_norms(model: nn.Module, peers: Peers) -> None:
    """Replace all batch norms of a model; names and values of its state stay as they are."""
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm):
            setattr(model, name, SharedBatchNorm.like(child, peers))
        else:
            share_batch_norms(child, peers)

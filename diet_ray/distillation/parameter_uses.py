"""Derivatives of each row's loss along directions of the parameters, by one backward pass of signals.

A parameter w acts on a row where an operation takes it: y = f(x, w). Along a direction v it moves y by
(df/dw) v, and row i's loss by <dl_i/dy_i, (df/dw) v>, summed over all such operations. So one forward pass
and one backward pass in the activations alone serve every direction; each direction costs one more product
per matrix. For a linear layer the term is dl_i/dy_i . (V x_i): the ghost dot product with a summed direction.
Forward mode costs two products per matrix and direction.

Shape suffixes: N rows, P directions, I inputs, O outputs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import jvp
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from diet_ray.models.examples import Examples, LossPerExample, Params

# Their derivatives need no formula: `jvp` computes the result once more and takes a slow one for some.
PRODUCTS = {  # linear in one argument, so the derivative is the product with the direction
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.bmm, Tensor.bmm),
    *(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__),
}
SUMS = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__}
# Linear in weight and bias together; beside them the layer takes this many tensors, the input first.
LAYERS = {functional.linear: 1, functional.layer_norm: 1, functional.batch_norm: 3}


class RowsUnknownError(Exception):
    """The operations of a model do not show which part of a tensor belongs to which row."""


class Operation(NamedTuple):
    """A call of PyTorch that takes parameters, or tensors made of nothing but parameters."""

    function: Callable[..., Any]
    arguments: list[Any]  # flat
    spec: TreeSpec
    own: list[int]  # positions of the parameters among the arguments
    tangents: list[list[Tensor]]  # per direction: of each parameter

    def call(self, *parameters: Tensor) -> Any:
        """The result with these in the place of the parameters."""
        arguments = [a.detach() if isinstance(a, Tensor) else a for a in self.arguments]
        for position, parameter in zip(self.own, parameters, strict=True):
            arguments[position] = parameter
        args, kwargs = tree_unflatten(arguments, self.spec)
        return self.function(*args, **kwargs)

    def along(self, direction: int) -> Tensor:
        """The derivative of the result along a direction, or what broadcasts to it."""
        tangents = self.tangents[direction]
        if self.function in SUMS and (len(self.own), len(self.arguments)) == (1, 2):
            return tangents[0]
        if self.function in PRODUCTS and len(self.own) == 1:
            return self.call(*tangents)
        others = sum(isinstance(a, Tensor) for a in self.arguments) - len(self.own)
        if 0 not in self.own and others == LAYERS.get(self.function):
            return self.call(*tangents)
        primals = [self.arguments[position] for position in self.own]
        return jvp(self.call, tuple(primals), tuple(tangents))[1]


class Use(NamedTuple):
    """An operation whose result depends on the rows, too."""

    operation: Operation
    versions: list[int]  # of the tensors among its arguments
    edge: GradientEdge  # where the backward pass brings the signal of the result
    shape: torch.Size

    def scores(self, signal: Tensor, dim: int) -> list[Tensor]:
        """Per direction the part of each row's derivative that is due to this operation; each [N].

        Args:
            signal: The derivative of the summed loss in the result.
            dim: The dimension of the result that counts the rows.
        """
        if versions(self.operation.arguments) != self.versions:
            raise RowsUnknownError(f"an argument of {self.operation.function} was changed in place")
        moves = map(self.operation.along, range(len(self.operation.tangents)))
        return [(signal * move).movedim(dim, 0).reshape(signal.shape[dim], -1).sum(1) for move in moves]


def versions(arguments: Iterable[Any]) -> list[int]:
    """Counters of the changes in place of the tensors."""
    return [a._version for a in arguments if isinstance(a, Tensor)]


class ParameterUses(TorchFunctionMode):
    """Records the operations that take parameters while a loss is computed.

    What is made of parameters alone is a parameter as well, with its own derivatives.
    """

    def __init__(self, params: Params, along: Sequence[Params]) -> None:
        super().__init__()
        self.uses: list[Use] = []
        self.directions = range(len(along))
        # By identity; the tensor beside its tangents keeps the identity from being given to another one.
        self.tangents = {id(p): (p, [v[name] for v in along]) for name, p in params.items()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if not self._takes_parameter(args) and not kwargs:
            return func(*args)
        arguments, spec = tree_flatten((args, kwargs or {}))
        own = [i for i, a in enumerate(arguments) if isinstance(a, Tensor) and id(a) in self.tangents]
        before = versions(arguments)
        result = func(*args, **(kwargs or {}))
        if own and any(isinstance(part, Tensor) for part in tree_flatten(result)[0]):
            tangents = [[self.tangents[id(arguments[i])][1][p] for i in own] for p in self.directions]
            self._take(Operation(func, arguments, spec, own, tangents), before, result)
        return result

    def _takes_parameter(self, args: Any) -> bool:
        """Quickly, for the many calls that take none."""
        return any(id(a) in self.tangents or isinstance(a, list | tuple) for a in args)

    def _take(self, operation: Operation, before: list[int], result: Any) -> None:
        if not isinstance(result, Tensor):
            raise RowsUnknownError(f"{operation.function} makes several tensors of parameters")
        if not result.requires_grad:
            along = [operation.along(p).expand_as(result) for p in self.directions]
            self.tangents[id(result)] = (result, along)
        else:
            self.uses.append(Use(operation, before, get_gradient_edge(result), result.shape))


def recorded(
    loss: LossPerExample, params: Params, rows: Examples, along: Sequence[Params]
) -> tuple[Tensor, list[Use]]:
    """The rows' losses [N], with a graph, and the operations that take parameters."""
    rows = rows._replace(emb_NFD=rows.emb_NFD.detach().requires_grad_())
    params = {name: p.detach() for name, p in params.items()}
    with torch.enable_grad(), ParameterUses(params, along) as mode:
        loss_N = loss(params, rows)
    return loss_N, mode.uses


def row_dims(loss: LossPerExample, params: Params, rows: Examples) -> list[int]:
    """The dimension that counts the rows in the result of each operation that takes parameters.

    Args:
        rows: At least three: the loss is computed for all of them and for all but the last.

    Raises:
        RowsUnknownError: It cannot be seen from the difference.
    """
    counts = rows.rows - 1, rows.rows
    shapes = [
        [use.shape for use in recorded(loss, params, rows.take(slice(0, count)), [])[1]] for count in counts
    ]
    if len(shapes[0]) != len(shapes[1]):
        raise RowsUnknownError("the operations depend on the number of rows")
    dims = []
    for first, second in zip(*shapes, strict=True):
        changed = [d for d, sizes in enumerate(zip(first, second, strict=True)) if sizes[0] != sizes[1]]
        if len(changed) != 1 or (first[changed[0]], second[changed[0]]) != counts:
            raise RowsUnknownError(f"no dimension of {tuple(second)} counts {rows.rows} rows")
        dims += changed
    return dims


def by_signals(
    loss: LossPerExample, params: Params, rows: Examples, along: Sequence[Params], dims: Sequence[int]
) -> Tensor:
    """The derivative of each row's loss along each direction; [N, P].

    Args:
        dims: What `row_dims` returns for this loss.

    Raises:
        RowsUnknownError: The operations are others than those of `dims`, or arguments were changed in place.
    """
    loss_N, uses = recorded(loss, params, rows, along)
    if len(uses) != len(dims):
        raise RowsUnknownError("the operations depend on the number of rows")
    total_PN = torch.zeros(len(along), rows.rows, dtype=loss_N.dtype, device=loss_N.device)
    signals = torch.autograd.grad(loss_N.sum(), [use.edge for use in uses], allow_unused=True)
    with torch.no_grad():
        for use, signal, dim in zip(uses, signals, dims, strict=True):
            if signal is not None:
                total_PN += torch.stack(use.scores(signal, dim))
    return total_PN.T

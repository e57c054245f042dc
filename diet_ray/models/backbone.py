"""The interface of an architecture, and the check that a class of the user's own keeps it.

Shape suffixes: N rows, F fields, D embedding dim, H hidden width.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diet_ray.errors import ConfigError
from diet_ray.models.user_code import describe

ROWS = 2  # of the batch that a backbone is tried on


@runtime_checkable
class Backbone(Protocol):
    """An nn.Module that maps embeddings [N, F, D] to hidden vectors [N, H]; the common head follows it.

    Its class is called as `Class(fields, dim, **options)`: the number of fields and the dim of an embedding
    by position, the options by keyword. A constructor that takes `**options` takes any option. Every
    nn.Linear that can be trained starts Xavier normal with bias 0, as in the built-in architectures; other
    layers, and those with `requires_grad_(False)`, start as the constructor leaves them.

    In evaluation mode the output of a row depends on this row alone. As the reference, a backbone also
    needs forward-mode and double backward derivatives, which PyTorch has for most but not all layers.

    >>> import torch
    >>> from torch import Tensor, nn
    >>> from diet_ray.models.registry import ModelConfig, build_model
    >>> class Shallow(nn.Module):
    ...     def __init__(self, fields: int, dim: int, *, hidden: int = 16) -> None:
    ...         super().__init__()
    ...         self.layer = nn.Linear(fields * dim, hidden)
    ...         self.out_features = hidden
    ...
    ...     def forward(self, emb_NFD: Tensor) -> Tensor:
    ...         return self.layer(emb_NFD.flatten(1)).relu()
    >>> backbone = build_backbone("shallow", Shallow, {"hidden": 8}, fields=3, dim=4)
    >>> isinstance(backbone, Backbone)
    True
    >>> backbone(torch.zeros(5, 3, 4)).shape
    torch.Size([5, 8])

    In a file `my_net.py` of the working directory the class is `my_net:Shallow` wherever a model is named:

        $ diet-ray evaluate --run runs/globo --candidates dcn,my_net:Shallow
    """

    out_features: int
    """H, the length of a hidden vector."""

    def forward(self, emb_NFD: Tensor, /) -> Tensor:
        """Return the hidden vectors [N, H], of the dtype and on the device of the embeddings."""


Architecture = Callable[..., nn.Module]


def build_backbone(
    name: str, architecture: Architecture, options: Mapping[str, Any], *, fields: int, dim: int
) -> nn.Module:
    """Call `architecture` and try what it returns on a small batch.

    The random state moves by what the constructor draws, and by nothing else.

    Raises:
        ConfigError: naming the model and what is wrong with it.
    """
    try:
        backbone = architecture(fields, dim, **options)
    except MemoryError:
        raise
    except ConfigError as wrong:
        raise ConfigError(f"model {name}: {wrong}") from wrong
    except Exception as failed:
        given = f" with options {dict(options)}" if options else ""
        size = f"{fields} fields of dim {dim}"
        raise ConfigError(f"model {name} cannot be built for {size}{given}: {describe(failed)}") from failed
    if not isinstance(backbone, nn.Module):
        raise ConfigError(f"model {name} must be an nn.Module, but it is a {type(backbone).__name__}")
    _check_out_features(name, backbone)
    with torch.random.fork_rng(devices=[]):
        emb_NFD = torch.randn(ROWS, fields, dim, generator=torch.Generator().manual_seed(0))
        _check_evaluation(name, backbone, emb_NFD)
        _check_training(name, backbone, emb_NFD)
    return backbone


def _check_out_features(name: str, backbone: nn.Module) -> None:
    wanted = "the attribute out_features, a positive int: the length of its hidden vectors"
    if not hasattr(backbone, "out_features"):
        raise ConfigError(f"model {name} lacks {wanted}")
    width = backbone.out_features
    if type(width) is not int or width < 1:
        kind = type(width).__name__
        shown = "" if isinstance(width, nn.Module | Tensor) else f" {width!r}"
        raise ConfigError(f"model {name} needs {wanted}; it is the {kind}{shown}")


def _check_evaluation(name: str, backbone: nn.Module, emb_NFD: Tensor) -> None:
    """A row has the same finite output alone and in a batch."""
    backbone.eval()
    with torch.no_grad():
        together_NH, alone_NH = _hidden(name, backbone, emb_NFD), _hidden(name, backbone, emb_NFD[:1])
    scale = float(together_NH.abs().max())
    if not torch.allclose(together_NH[:1], alone_NH, rtol=1e-3, atol=1e-3 * scale):
        raise ConfigError(
            f"model {name} gives a row other outputs in a batch than alone: in evaluation mode the output of "
            "a row must depend neither on other rows nor on chance"
        )


def _check_training(name: str, backbone: nn.Module, emb_NFD: Tensor) -> None:
    """Embeddings get a gradient; buffers, such as the statistics of batch norms, are left as they were."""
    backbone.train()
    buffers = [
        (module, buffer_name, buffer, buffer.clone())
        for module in backbone.modules()
        for buffer_name, buffer in module.named_buffers(recurse=False)
    ]
    emb_NFD = emb_NFD.clone().requires_grad_()
    hidden_NH = _hidden(name, backbone, emb_NFD)
    if _gradient(name, hidden_NH, emb_NFD) is None:
        raise ConfigError(
            f"model {name} gives the embeddings no gradient: forward detaches them or skips them"
        )
    with torch.no_grad():
        for module, buffer_name, buffer, before in buffers:
            setattr(module, buffer_name, buffer.copy_(before))


def _gradient(name: str, hidden_NH: Tensor, emb_NFD: Tensor) -> Tensor | None:
    """The gradient of the summed output in the embeddings, None where it does not depend on them."""
    if not hidden_NH.requires_grad:
        return None
    try:
        return torch.autograd.grad(hidden_NH.sum(), emb_NFD, allow_unused=True)[0]
    except RuntimeError as failed:
        raise ConfigError(f"model {name} cannot be differentiated: {describe(failed)}") from failed


def _hidden(name: str, backbone: nn.Module, emb_NFD: Tensor) -> Tensor:
    """The output of the backbone for one batch, checked for its type, shape and values."""
    given, mode = tuple(emb_NFD.shape), "training" if backbone.training else "evaluation"
    try:
        hidden_NH = backbone(emb_NFD)
    except MemoryError:
        raise
    except Exception as failed:
        raise ConfigError(
            f"model {name}: forward fails in {mode} mode on embeddings {given}: {describe(failed)}"
        ) from failed
    expected = (len(emb_NFD), backbone.out_features)
    if not isinstance(hidden_NH, Tensor):
        kind = type(hidden_NH).__name__
        raise ConfigError(
            f"model {name}: forward returns a {kind} in {mode} mode, expected a tensor {expected}"
        )
    if tuple(hidden_NH.shape) != expected:
        raise ConfigError(f"model {name} maps {given} to {tuple(hidden_NH.shape)}, expected {expected}")
    if hidden_NH.dtype != emb_NFD.dtype:
        raise ConfigError(f"model {name} returns {hidden_NH.dtype}, expected {emb_NFD.dtype}")
    if not hidden_NH.isfinite().all():
        raise ConfigError(f"model {name} returns NaN or infinite values in {mode} mode on normal embeddings")
    return hidden_NH

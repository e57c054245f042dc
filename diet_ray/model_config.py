"""The configuration of a model, apart from the classes it names: they need PyTorch, which takes seconds."""

from typing import Annotated, Any

from pydantic import Field

from diet_ray.strict import Strict

BUILT_IN = (
    "dcn",
    "dcnv2",
    "finalnet",
    "finalmlp",
    "wukong",
)  # by name, as in registry.ARCHITECTURES
Size = Annotated[int, Field(gt=0)]


class HeadConfig(Strict):
    """Size of the common MMoE head."""

    experts: Size = 4
    """Experts, shared by the tasks."""
    expert_hidden: Annotated[tuple[Size, ...], Field(min_length=1)] = (128, 64)
    """Layer widths of each expert."""
    gate_hidden: tuple[Size, ...] = ()
    """Layer widths of each gate below its softmax; none: a linear gate."""
    tower_hidden: tuple[Size, ...] = (64,)
    """Layer widths of each task's tower below its logit."""


class ModelConfig(Strict):
    """An architecture: a name of ARCHITECTURES, `package.module:Class` or `file.py:Class`, and its options.

    What a class of the user's own must be is diet_ray.models.backbone.Backbone.
    """

    name: str = "dcn"
    """Architecture: dcn, dcnv2, finalnet, finalmlp, wukong, `package.module:Class` or `file.py:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the architecture."""
    head: HeadConfig = HeadConfig()
    """The multi-task head above it."""

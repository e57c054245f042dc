"""Streaming dataset distillation for recommender models: the method, without Ray.

The public API; everything else may change from one version to the next.

    load_schema     the description of a log, from a YAML file
    prepare         a raw log to encoded blocks, in this process (`diet-ray prepare` does it on a cluster)
    distill         a prepared log to a memory, in this process (`diet-ray distill` does it on a cluster)
    load_memory     the memory of a run as an Arrow table
    load_model      a model that `diet-ray train` exported
    RunConfig ...   every choice of a run; FitConfig and CandidateConfig of a candidate's training
    LogSchema       what load_schema returns; StreamConfig of a log that arrives in a stream
    Backbone        the interface of an architecture of your own
    DietError       base of the errors whose message names what a user can correct
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diet_ray.errors import ConfigError, DataError, DietError, ResourceError, RunError
from diet_ray.version import __version__

if TYPE_CHECKING:
    from diet_ray.config import (
        BoundaryConfig,
        CandidateConfig,
        FitConfig,
        InnerConfig,
        MethodConfig,
        OuterConfig,
        ReferenceConfig,
        RunConfig,
        TrainingConfig,
    )
    from diet_ray.evaluation.exported_model import ExportedModel, load_model
    from diet_ray.local import distill
    from diet_ray.log.dataset import PreparedLog
    from diet_ray.log.preparation.prepare import prepare
    from diet_ray.log.schema import LogSchema, load_schema
    from diet_ray.log.stream.config import StreamConfig
    from diet_ray.model_config import HeadConfig, ModelConfig
    from diet_ray.models.backbone import Backbone
    from diet_ray.runs.published_memory import load_memory
    from diet_ray.runs.run import Run

__all__ = [
    "Backbone",
    "BoundaryConfig",
    "CandidateConfig",
    "ConfigError",
    "DataError",
    "DietError",
    "ExportedModel",
    "FitConfig",
    "HeadConfig",
    "InnerConfig",
    "LogSchema",
    "MethodConfig",
    "ModelConfig",
    "OuterConfig",
    "PreparedLog",
    "ReferenceConfig",
    "ResourceError",
    "Run",
    "RunConfig",
    "RunError",
    "StreamConfig",
    "TrainingConfig",
    "__version__",
    "distill",
    "load_memory",
    "load_model",
    "load_schema",
    "prepare",
]

# Loaded at first use: PyTorch takes seconds to import, and a command's --help needs none of it.
_MODULES = {
    "diet_ray.config": (
        "BoundaryConfig",
        "CandidateConfig",
        "FitConfig",
        "InnerConfig",
        "MethodConfig",
        "OuterConfig",
        "ReferenceConfig",
        "RunConfig",
        "TrainingConfig",
    ),
    "diet_ray.evaluation.exported_model": ("ExportedModel", "load_model"),
    "diet_ray.local": ("distill",),
    "diet_ray.log.dataset": ("PreparedLog",),
    "diet_ray.log.preparation.prepare": ("prepare",),
    "diet_ray.log.schema": ("LogSchema", "load_schema"),
    "diet_ray.log.stream.config": ("StreamConfig",),
    "diet_ray.model_config": ("HeadConfig", "ModelConfig"),
    "diet_ray.models.backbone": ("Backbone",),
    "diet_ray.runs.published_memory": ("load_memory",),
    "diet_ray.runs.run": ("Run",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

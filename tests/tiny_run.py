"""A run and an evaluation that take seconds."""

from diet_ray.config import FitConfig, InnerConfig, MethodConfig, OuterConfig, ReferenceConfig, RunConfig

TINY = RunConfig(
    ratio=0.05,
    dim=8,
    pool_rows=512,
    reference=ReferenceConfig(name="finalnet", ensemble=("finalnet",)),
    training={"batch_size": 128},
    method=MethodConfig(
        inner=InnerConfig(batch_size=16, horizon=4, window=2),
        outer=OuterConfig(iterations=3, real_rows=256),
    ),
)

FIT = FitConfig(epochs=2, batch_size=32, validation_rows=300)

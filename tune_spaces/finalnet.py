"""FinalNet: layer widths of its factorized interaction blocks."""

from ray import tune

from tune_spaces.space import Space

SPACE = Space(
    model="finalnet",
    options={"hidden": tune.choice([(16,), (64,), (32, 32), (64, 64, 64), (128, 128), (256, 128, 64)])},
    learning_rate=tune.loguniform(1e-4, 5e-3),
)

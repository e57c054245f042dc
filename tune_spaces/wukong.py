"""Wukong: number of layers, their fields and projection, and layer widths of the MLPs in them and on top."""

from ray import tune

from tune_spaces.space import Space

SPACE = Space(
    model="wukong",
    options={
        "layers": tune.randint(1, 4),
        "half": tune.choice([4, 8, 16, 40]),
        "projection": tune.choice([4, 8]),
        "interaction_hidden": tune.choice([(64,), (128, 64), (512, 256)]),
        "hidden": tune.choice([(64,), (128, 64), (512, 256)]),
    },
    learning_rate=tune.loguniform(1e-4, 5e-3),
)

"""DCN: depth of the cross network, layer widths of the MLP."""

from ray import tune

from tune_spaces.space import Space

SPACE = Space(
    model="dcn",
    options={
        "cross_layers": tune.randint(1, 6),
        "hidden": tune.choice([(32,), (128, 64), (256, 128), (512, 256, 128), (1024, 512, 256)]),
    },
    learning_rate=tune.loguniform(1e-4, 5e-3),
)

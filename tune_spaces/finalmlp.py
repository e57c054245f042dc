"""FinalMLP: layer widths of its two streams and of the gates of its feature selection."""

from ray import tune

from tune_spaces.space import Space

SPACE = Space(
    model="finalmlp",
    options={
        "hidden1": tune.choice([(32,), (128, 64), (256,), (512, 256), (1024, 512)]),
        "hidden2": tune.choice([(64,), (128, 64), (256, 128, 64), (512, 256, 128), (1024, 512, 256)]),
        "gate_hidden": tune.choice([(64,), (256, 128), (1024, 512)]),
    },
    learning_rate=tune.loguniform(1e-4, 5e-3),
)

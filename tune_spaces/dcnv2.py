"""DCN V2: full-rank or low-rank cross network, parallel to the MLP or below it."""

from ray import tune

from tune_spaces.space import Space

SPACE = Space(
    model="dcnv2",
    options={
        "structure": tune.choice(["parallel", "stacked"]),
        "cross_layers": tune.randint(1, 5),
        "hidden": tune.choice([(32,), (128, 64), (256, 128), (500, 500), (500, 500, 500)]),
        "low_rank": tune.choice([False, True]),
        "rank": tune.choice([8, 32]),  # of a low-rank expert
    },
    learning_rate=tune.loguniform(1e-4, 5e-3),
)

"""A search space a user might bring: own modules, one of which fails, impossible and diverging values."""

from ray import tune

from tune_spaces.space import Space

SPACE = (
    Space(
        model="tests.own_backbone:Wide",
        options={"outputs": tune.choice([4, 8, 16])},
        learning_rate=tune.loguniform(1e-3, 1e-2),
    ),
    Space(model="tests.own_backbone:Exploding"),
    Space(model="finalnet", options={"hidden": tune.choice([(-4,)])}),
    Space(model="tests.own_backbone:Wide", learning_rate=1e30),
)

"""Search spaces of candidate architectures for Ray Tune: one module per architecture, and all of them joined.

A space of your own is a module with an attribute SPACE, a `Space` or a tuple of them:

    # my_package/my_space.py
    from ray import tune
    from tune_spaces.space import Space

    SPACE = Space(model="my_package.models:MyNet", options={"depth": tune.randint(1, 5)})

    $ diet-ray search --run runs/globo --space my_package.my_space
"""

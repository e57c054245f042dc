"""Search spaces of candidate architectures for Ray Tune: one module per architecture, and one of all five.

A space of your own is a module in the working directory or an installed package. Its attribute SPACE is a
`Space` or a tuple of them:

    # my_space.py
    from ray import tune
    from tune_spaces.space import Space

    SPACE = Space(model="my_net:MyNet", options={"depth": tune.randint(1, 5)})

    $ diet-ray search --run runs/globo --space my_space
"""

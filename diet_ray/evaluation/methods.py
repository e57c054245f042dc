"""What a candidate may learn in place of history."""

from typing import Literal, get_args

Method = Literal["cold", "warmup", "newest", "random", "kmeans", "el2n", "diet", "full"]
METHODS: tuple[Method, ...] = get_args(Method)
WITHOUT_TABLES = ("cold", "full")
PROBE_SEEDS = 2  # small candidates that judge a memory
REDUCED = ("newest", "random", "kmeans", "el2n", "diet")

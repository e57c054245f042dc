"""One seed per purpose: every random choice of a run is a function of the run's seed and a name."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the purpose `names`, e.g. derived_seed(0, "shuffle", stage)."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *names: object) -> "torch.Generator":
    """CPU generator: draws are the same whatever device the tensors move to afterwards."""
    import torch  # takes seconds, which preparing a log need not wait for

    return torch.Generator().manual_seed(derived_seed(seed, *names))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng(derived_seed(seed, *names))

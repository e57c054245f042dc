"""A restored recommender goes on exactly as the saved one would."""

import pytest
import torch

from diet_ray.checkpoint import restore, to_bytes
from diet_ray.errors import RunError
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.recommender import Recommender
from tests.test_recommender import batch


def recommender(name: str = "finalnet") -> Recommender:
    options = {"finalnet": {"hidden": (8, 8)}, "dcn": {"hidden": (16, 8)}}[name]
    dense = build_model(ModelConfig(name=name, options=options), fields=3, width=4, tasks=2, seed=0)
    return Recommender(dense, 3, 4, learning_rate=1e-2)


@pytest.mark.parametrize("name", ["finalnet", "dcn"])
@pytest.mark.parametrize("steps", [0, 3])
def test_training_goes_on_to_the_bit(name: str, steps: int) -> None:
    """FinalNet has batch norms: their running statistics travel too."""
    saved, restored = recommender(name), recommender(name)
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    for seed in range(steps):
        saved.step(*batch(seed=seed))
    restore(restored, to_bytes(saved))
    assert restored.tables.rows == (50, 7, 4)
    for learner in (saved, restored):
        learner.grow((60, 7, 9), torch.Generator().manual_seed(1))
    for seed in range(3):
        assert saved.step(*batch(seed=10 + seed)) == restored.step(*batch(seed=10 + seed))
    assert to_bytes(saved) == to_bytes(restored)


def test_a_checkpoint_of_another_architecture_is_refused() -> None:
    with pytest.raises(RunError, match="another architecture"):
        restore(recommender("dcn"), to_bytes(recommender("finalnet")))


def test_a_checkpoint_cut_short_is_refused() -> None:
    with pytest.raises(RunError, match="damaged"):
        restore(recommender(), to_bytes(recommender())[:-5])

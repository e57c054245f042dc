"""A restored recommender goes on exactly as the saved one would."""

import pytest
import torch

from diet_ray.errors import RunError
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.checkpoint import restore, restore_tables, restore_weights, to_bytes
from diet_ray.training.recommender import Recommender
from tests.test_recommender import batch


def recommender(name: str = "finalnet") -> Recommender:
    options = {"finalnet": {"hidden": (8, 8)}, "dcn": {"hidden": (16, 8)}}[name]
    dense = build_model(ModelConfig(name=name, options=options), fields=3, dim=4, tasks=2, seed=0)
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


def test_a_candidate_takes_over_tables_and_their_moments_but_not_the_dense_model() -> None:
    saved, candidate = recommender("dcn"), recommender("finalnet")
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    saved.step(*batch(seed=0))
    before = {name: part.clone() for name, part in candidate.dense.state_dict().items()}
    restore_tables(candidate, to_bytes(saved))
    for mine, theirs in zip(candidate.tables.weights(), saved.tables.weights(), strict=True):
        state, wanted = (m.table_optimiser.state[w] for m, w in ((candidate, mine), (saved, theirs)))
        assert torch.equal(mine, theirs) and state["step"] == wanted["step"] == 1
        assert torch.equal(state["exp_avg"], wanted["exp_avg"]) and wanted["exp_avg"].any()
        assert torch.equal(state["exp_avg_sq"], wanted["exp_avg_sq"])
    assert all(torch.equal(part, before[name]) for name, part in candidate.dense.state_dict().items())


def test_a_learner_that_only_scores_holds_no_moments() -> None:
    saved, scoring = recommender("dcn"), recommender("dcn")
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    saved.step(*batch(seed=0))
    restore_weights(scoring, to_bytes(saved))
    id_NF, _ = batch(seed=1)
    assert torch.equal(scoring.dense(scoring.tables(id_NF)), saved.dense(saved.tables(id_NF)))
    assert not scoring.table_optimiser.state


def test_a_checkpoint_of_another_architecture_is_refused() -> None:
    with pytest.raises(RunError, match="another architecture"):
        restore(recommender("dcn"), to_bytes(recommender("finalnet")))


def test_a_checkpoint_cut_short_is_refused() -> None:
    with pytest.raises(RunError, match="damaged"):
        restore(recommender(), to_bytes(recommender())[:-5])

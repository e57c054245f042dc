"""A restored recommender goes on exactly as the saved one would."""

from collections.abc import Callable

import pytest
import torch

from diet_ray.errors import RunError
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.checkpoints.restoring import restore, restore_tables
from diet_ray.training.checkpoints.snapshot import Snapshot
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.recommender import Recommender
from tests.stored_checkpoint import in_memory, same_state, single_file, stored
from tests.test_recommender import batch

Store = Callable[[Recommender], StoredCheckpoint]
FORMS = pytest.mark.parametrize("store", [stored, lambda learner: single_file(learner, in_memory())])


def recommender(name: str = "finalnet") -> Recommender:
    options = {"finalnet": {"hidden": (8, 8)}, "dcn": {"hidden": (16, 8)}}[name]
    dense = build_model(ModelConfig(name=name, options=options), fields=3, dim=4, tasks=2, seed=0)
    return Recommender(dense, 3, 4, learning_rate=1e-2)


@FORMS
@pytest.mark.parametrize("name", ["finalnet", "dcn"])
@pytest.mark.parametrize("steps", [0, 3])
def test_training_goes_on_to_the_bit(name: str, steps: int, store: Store) -> None:
    """FinalNet has batch norms: their running statistics travel too."""
    saved, restored = recommender(name), recommender(name)
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    for seed in range(steps):
        saved.step(*batch(seed=seed))
    restore(restored, store(saved))
    assert restored.tables.rows == (50, 7, 4)
    for learner in (saved, restored):
        learner.grow((60, 7, 9), torch.Generator().manual_seed(1))
    for seed in range(3):
        assert saved.step(*batch(seed=10 + seed)) == restored.step(*batch(seed=10 + seed))
    assert same_state(saved, restored)


@FORMS
def test_a_candidate_takes_over_tables_and_their_moments_but_not_the_dense_model(store: Store) -> None:
    saved, candidate = recommender("dcn"), recommender("finalnet")
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    saved.step(*batch(seed=0))
    before = {name: part.clone() for name, part in candidate.dense.state_dict().items()}
    restore_tables(candidate, store(saved))
    for mine, theirs in zip(candidate.tables.weights(), saved.tables.weights(), strict=True):
        state, wanted = (m.table_optimiser.state[w] for m, w in ((candidate, mine), (saved, theirs)))
        assert torch.equal(mine, theirs) and state["step"] == wanted["step"] == 1
        assert torch.equal(state["exp_avg"], wanted["exp_avg"]) and wanted["exp_avg"].any()
        assert torch.equal(state["exp_avg_sq"], wanted["exp_avg_sq"])
    assert all(torch.equal(part, before[name]) for name, part in candidate.dense.state_dict().items())


@FORMS
def test_a_snapshot_embeds_as_the_saved_tables_and_holds_the_rows_that_it_met(store: Store) -> None:
    saved, dense = recommender("dcn"), recommender("dcn").dense
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    saved.step(*batch(seed=0))
    snapshot = Snapshot.of(store(saved), dense, fields=3, dim=4)
    assert snapshot.tables.rows == (50, 7, 4)
    for seed in (1, 1, 2):
        id_NF = batch(seed=seed)[0]
        assert torch.equal(snapshot.dense(snapshot.tables(id_NF)), saved.dense(saved.tables(id_NF)))
    met = torch.cat([batch(seed=1)[0], batch(seed=2)[0]])
    for field, rows in enumerate(snapshot.tables._fields):
        assert rows.id_K.tolist() == met[:, field].unique().tolist()
        assert len(rows.weight_KD) == len(rows.id_K)
    with pytest.raises(RunError, match="has no row 50 of table 0"):
        snapshot.tables(torch.tensor([[50, 0, 0]]))


def test_a_checkpoint_of_another_architecture_is_refused() -> None:
    other = stored(recommender("finalnet"))
    with pytest.raises(RunError, match="another architecture"):
        restore(recommender("dcn"), other)
    with pytest.raises(RunError, match="another architecture"):
        Snapshot.of(other, recommender("dcn").dense, fields=3, dim=4)

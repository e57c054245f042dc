"""What a checkpoint's file holds, name by name, and what each way of reading it puts back."""

import pytest
import torch
from safetensors.torch import load, save

from diet_ray.errors import RunError
from diet_ray.training.checkpoint import restore, restore_tables, restore_weights, to_bytes
from diet_ray.training.recommender import Recommender
from diet_ray.training.serialization import to_safetensors
from tests.distinct_blocks import same_tensors
from tests.test_checkpoint import recommender
from tests.test_recommender import batch


def stepped() -> Recommender:
    learner = recommender("finalnet")
    learner.grow((50, 7, 4), torch.Generator().manual_seed(0))
    for seed in range(3):
        learner.step(*batch(seed=seed))
    return learner


def test_the_file_has_every_tensor_and_moment_by_name() -> None:
    learner = stepped()
    state = load(to_bytes(learner))
    expected: dict[str, torch.Tensor] = {}
    for name, tensor in learner.dense.state_dict().items():
        expected[f"dense.{name}"] = tensor
    for name, weight in learner.dense.named_parameters():
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            expected[f"dense.{name}.{moment}"] = learner.dense_optimiser.state[weight][moment]
    for field, weight in enumerate(learner.tables.weights()):
        expected[f"tables.{field}"] = weight.detach()
        moments = learner.table_optimiser.state[weight]
        expected[f"tables.{field}.step"] = torch.tensor(moments["step"])
        for moment in ("exp_avg", "exp_avg_sq"):
            expected[f"tables.{field}.{moment}"] = moments[moment]
    assert state.keys() == expected.keys() and state["tables.0.step"] == 3
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def test_a_whole_state_puts_back_all_moments() -> None:
    saved, restored = stepped(), recommender("finalnet")
    restore(restored, to_bytes(saved))
    assert same_tensors(saved.dense, restored.dense) and same_tensors(saved.tables, restored.tables)
    for optimiser in ("dense_optimiser", "table_optimiser"):
        ours, theirs = (getattr(learner, optimiser).state_dict()["state"] for learner in (saved, restored))
        assert ours.keys() == theirs.keys()
        for number, moments in ours.items():
            assert moments.keys() == theirs[number].keys()
            for name, value in moments.items():
                assert type(value) is type(theirs[number][name])
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[number][name]))


def test_weights_alone_have_no_moments_and_tables_alone_no_dense_part() -> None:
    saved, scoring, tables = stepped(), recommender("finalnet"), recommender("finalnet")
    before = {name: part.clone() for name, part in tables.dense.state_dict().items()}
    restore_weights(scoring, to_bytes(saved))
    restore_tables(tables, to_bytes(saved))
    assert same_tensors(saved.dense, scoring.dense) and same_tensors(saved.tables, scoring.tables)
    assert not scoring.table_optimiser.state and not scoring.dense_optimiser.state
    assert same_tensors(saved.tables, tables.tables) and not tables.dense_optimiser.state
    assert all(torch.equal(part, before[name]) for name, part in tables.dense.state_dict().items())
    assert all(tables.table_optimiser.state[w]["step"] == 3 for w in tables.tables.weights())


def changed(**tensors: torch.Tensor | None) -> bytes:
    """A checkpoint in which `name` (with __ for a point) has another tensor or none."""
    state = load(to_bytes(stepped()))
    for name, tensor in tensors.items():
        state.pop(name.replace("__", "."))
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    return save(state)


@pytest.mark.parametrize("read", [restore_weights, restore_tables])
def test_tables_that_do_not_fit_are_named(read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RunError, match="of another log: it has no table of field 1"):
        read(recommender(), changed(tables__1=None))
    with pytest.raises(RunError, match="embeddings of dim 5, not 4"):
        read(recommender(), changed(tables__1=torch.zeros(7, 5)))
    with pytest.raises(RunError, match="checkpoint is damaged"):
        read(recommender(), to_bytes(stepped())[:-5])


@pytest.mark.parametrize("read", [restore, restore_weights])
def test_a_dense_part_of_another_shape_is_refused(read) -> None:  # type: ignore[no-untyped-def]
    name = next(name for name in load(to_bytes(stepped())) if name.endswith("towers.0.1.bias"))
    for tensor in (None, torch.zeros(9)):
        with pytest.raises(RunError, match="of another architecture"):
            read(recommender(), changed(**{name.replace(".", "__"): tensor}))


def test_tables_of_a_model_that_never_stepped_come_without_moments() -> None:
    saved, candidate = recommender(), recommender()
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    restore_tables(candidate, to_bytes(saved))
    assert not candidate.table_optimiser.state and candidate.tables.rows == (50, 7, 4)


def test_tensors_that_share_memory_are_written_in_full() -> None:
    whole = torch.arange(6.0)
    state = {"a": whole, "b": whole, "c": whole.view(2, 3).T, "d": torch.ones(2)}
    stored = load(to_safetensors(state))
    assert stored.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(stored[name], tensor)

"""Joined tables learn what one table per field learns."""

import pytest
import torch

from diet_ray.errors import DataError
from diet_ray.model_config import HeadConfig
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.joined_tables import JoinedTables
from diet_ray.training.recommender import Recommender
from diet_ray.training.tables import Tables

DIM, BATCH = 4, 16
GROWTH = ((5, 7, 3), (9, 7, 6))  # rows of the three tables before each part of the training


@pytest.fixture(autouse=True)
def doubles() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def learner(kind: type[Tables]) -> Recommender:
    config = ModelConfig(name="dcn", options={"hidden": [6]}, head=HeadConfig(experts=1, expert_hidden=(4,)))
    model = build_model(config, fields=3, dim=DIM, tasks=2, seed=0)
    return Recommender(model, 3, DIM, learning_rate=0.05, clip_norm=0.2, tables=kind(3, DIM))


def losses(model: Recommender) -> list[float]:
    """Steps on the same batches for every kind of tables, which grow between them."""
    draw, batches = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    found = []
    for rows in GROWTH:
        model.grow(rows, draw)
        for _ in range(6):
            id_NF = torch.stack([torch.randint(count, (BATCH,), generator=batches) for count in rows], 1)
            label_NT = torch.randint(2, (BATCH, 2), generator=batches)
            found.append(model.step(id_NF, label_NT))
    return found


def test_steps_are_those_of_separate_tables() -> None:
    separate, joined = learner(Tables), learner(JoinedTables)
    assert losses(joined) == pytest.approx(losses(separate), rel=1e-12)
    every_NF = torch.stack([torch.arange(6) % count for count in GROWTH[-1]], 1)
    assert torch.allclose(joined.tables(every_NF), separate.tables(every_NF), rtol=1e-10, atol=0)
    for ours, theirs in zip(joined.tables.by_field(), separate.tables.by_field(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=0)
    assert joined.tables.rows == separate.tables.rows == GROWTH[-1]


def test_an_id_beyond_its_table_is_not_the_next_tables_row() -> None:
    model = learner(JoinedTables)
    model.grow((5, 7, 3), torch.Generator())
    assert model.tables(torch.tensor([[4, 6, 2]])).shape == (1, 3, DIM)
    with pytest.raises(RuntimeError):
        model.tables(torch.tensor([[5, 0, 0]]))


def test_no_table_shrinks_and_none_is_replaced() -> None:
    model = learner(JoinedTables)
    model.grow((5, 7, 3), torch.Generator())
    with pytest.raises(DataError, match="table 1 has 7 rows, cannot shrink to 6"):
        model.grow((5, 6, 3), torch.Generator())
    with pytest.raises(NotImplementedError):
        model.tables.put(0, 2, torch.zeros(2, DIM))

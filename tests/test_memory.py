"""The memory file, fusion, addressing and the selective outer step."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from diet_ray.distillation.addressing import active_memory, hard_targets
from diet_ray.distillation.memory import Memory, from_arrow, fuse, to_arrow
from diet_ray.distillation.outer import OuterOptimiser
from diet_ray.distillation.unroll import MetaGradient
from diet_ray.errors import DataError, RunError
from diet_ray.memory_schema import MemorySchema
from diet_ray.models.examples import Examples, dense_params, loss_of, predict
from tests.test_influence import per_example_gradients
from tests.tiny_network import DIM, FIELDS, TASKS, examples, network

SCHEMA = MemorySchema(("user", "item", "hour"), DIM, ("click", "like"))


def memory(rows: int, seed: int, stage: int = 1) -> Memory:
    drawn = examples(rows, seed)
    logit_NT = torch.randn(rows, TASKS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    stage_N = torch.full((rows,), stage, dtype=torch.int32)
    group_N = torch.arange(rows, dtype=torch.int32) % 4
    return Memory(drawn.emb_NFD, logit_NT, stage_N, group_N, torch.full((rows,), float("nan")))


def test_file_opens_in_pandas_and_polars_and_reads_back(tmp_path: Path) -> None:
    path, stored = tmp_path / "memory.parquet", memory(5, seed=1)
    pq.write_table(to_arrow(stored, SCHEMA, "reference/0001"), path)
    embedding = stored.emb_NFD.flatten(1).float().numpy()
    np.testing.assert_array_equal(np.stack(pd.read_parquet(path)["embedding"].to_list()), embedding)
    np.testing.assert_array_equal(pl.read_parquet(path)["embedding"].to_numpy(), embedding)
    metadata = json.loads(pq.read_schema(path).metadata[b"diet_ray"])
    assert metadata == {
        "fields": ["user", "item", "hour"],
        "width": DIM,
        "tasks": ["click", "like"],
        "F": 3,
        "d": DIM,
        "K": 2,
        "reference": "reference/0001",
    }
    back = from_arrow(pq.read_table(path), SCHEMA)
    assert back.emb_NFD.shape == (5, FIELDS, DIM)
    torch.testing.assert_close(back.logit_NT, stored.logit_NT.float(), rtol=0, atol=0)
    assert back.group_N.tolist() == stored.group_N.tolist()
    assert back.stage_N.tolist() == stored.stage_N.tolist() and back.influence_N.isnan().all()


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (SCHEMA._replace(fields=("user", "item", "day")), "fields"),
        (SCHEMA._replace(dim=8), "dim"),
        (SCHEMA._replace(tasks=("click",)), "tasks"),
    ],
)
def test_a_memory_of_another_schema_is_refused(other: MemorySchema, names: str) -> None:
    table = to_arrow(memory(5, seed=1), SCHEMA, "reference/0001")
    with pytest.raises(RunError, match=f"another schema: {names}"):
        from_arrow(table, other)
    with pytest.raises(RunError, match="not a diet_ray memory"):
        from_arrow(table.replace_schema_metadata(None), SCHEMA)


def test_fusion_keeps_the_old_rows_that_influence_the_new_ones_most() -> None:
    model, new, old = network(), memory(6, seed=1, stage=2), memory(9, seed=2)
    # As a stage has them: the soft labels of the new rows are the checkpoint's own answers.
    new = new._replace(logit_NT=predict(model, new.emb_NFD))
    label_NT = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0], [1, 0]], dtype=torch.float64)
    new_grads = per_example_gradients(model, Examples(new.emb_NFD, label_NT))
    slow_N = per_example_gradients(model, old.examples()) @ new_grads.sum(0)
    fused = fuse(loss_of(model), dense_params(model), new=new, old=old, keep=4)
    best = sorted(slow_N.topk(4).indices.tolist())
    assert fused.stage_N.tolist() == [2] * 6 + [1] * 4
    assert torch.equal(fused.emb_NFD[6:], old.emb_NFD[best])
    torch.testing.assert_close(fused.influence_N[6:], slow_N[best].float())


def test_addressing_agrees_with_the_matrix_of_all_influences() -> None:
    model, real, stored = network(), examples(30, seed=3), memory(20, seed=4).examples()
    loss, params = loss_of(model), dense_params(model)
    phi_RS = per_example_gradients(model, real) @ per_example_gradients(model, stored).T
    hard = hard_targets(loss, params, real=real, memory=stored, ratio=0.1)
    assert set(hard.tolist()) == set((-phi_RS.sum(1)).topk(3).indices.tolist())
    active = active_memory(loss, params, hard=real.take(hard), memory=stored, count=5)
    assert set(active.tolist()) == set(phi_RS[hard].sum(0).topk(5).indices.tolist())


def gradient(rows: list[int], seed: int, scale: float = 1.0) -> MetaGradient:
    draw = torch.Generator().manual_seed(seed)
    emb = scale * torch.randn(len(rows), FIELDS, DIM, generator=draw)
    return MetaGradient(torch.tensor(rows), emb, scale * torch.randn(len(rows), TASKS, generator=draw), 0.0)


def optimiser() -> OuterOptimiser:
    stored = memory(8, seed=5)
    return OuterOptimiser(
        stored.emb_NFD.float(), stored.logit_NT.float(), embedding_rate=1e-3, logit_rate=1e-2
    )


def test_rows_not_addressed_and_their_state_do_not_move_by_a_bit() -> None:
    outer = optimiser()
    outer.step(gradient(list(range(8)), seed=1))  # every row now has momentum
    parts = (outer.emb_NFD, outer.logit_NT)
    tensors = [
        t for p in parts for t in (p, outer.adam.state[p]["exp_avg"], outer.adam.state[p]["exp_avg_sq"])
    ]
    before = [t.clone() for t in tensors]
    for seed in range(3):
        outer.step(gradient([2, 5], seed=seed))
    others = [0, 1, 3, 4, 6, 7]
    for now, then in zip(tensors, before, strict=True):
        assert torch.equal(now[others], then[others])
        assert not torch.equal(now[[2, 5]], then[[2, 5]])


def test_a_meta_gradient_far_above_its_average_is_clipped() -> None:
    outer = optimiser()
    usual = outer.step(gradient([0, 1], seed=1))
    assert outer.step(gradient([0, 1], seed=1, scale=100.0)) == pytest.approx(100 * usual, rel=1e-4)
    # The average has seen a norm of 2 x usual, not of 100 x.
    assert outer.usual_norm == pytest.approx(0.9 * usual + 0.1 * 2 * usual, rel=1e-4)


def test_a_meta_gradient_that_is_not_finite_stops_before_the_memory_moves() -> None:
    outer = optimiser()
    before = outer.emb_NFD.clone()
    with pytest.raises(DataError, match="not finite"):
        outer.step(gradient([0], seed=1, scale=float("nan")))
    assert torch.equal(outer.emb_NFD, before)

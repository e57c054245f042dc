"""The influence on every row of a block, its hard rows, and the pool that is drawn from them.

Shape suffixes: N rows, P proxies.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from diet_ray.config import RunConfig
from diet_ray.distillation.addressing import BlockInfluence, hard_targets, proxy_directions
from diet_ray.distillation.influence import summed_influence
from diet_ray.distillation.pool import HARD, REST, HardCells, Pool, draw_pool, hard_cells
from diet_ray.distillation.row_choice import Rows, row_hash
from diet_ray.distillation.scored_rows import (
    AlignedPart,
    EmbeddedRows,
    LocalScorer,
    PartScorer,
    target_labels,
)
from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.base import DenseModel
from diet_ray.models.examples import Examples, dense_params, loss_of, predict
from diet_ray.models.registry import build_model
from diet_ray.seeding import derived_seed
from diet_ray.training.learning import learn_block, new_recommender
from diet_ray.training.recommender import Recommender
from tests.distinct_blocks import SMALL, write_distinct_blocks
from tests.test_influence import per_example_gradients

ROWS, PROXIES, RATIO = 140, 2, SMALL.method.outer.hard_ratio


def model(seed: int) -> DenseModel:
    member = SMALL.reference.members()[0]
    return build_model(member, fields=3, dim=4, tasks=2, seed=seed)


def doubled(recommender: Recommender) -> Recommender:
    """The same in float64."""
    recommender.tables.double()
    recommender.dense.double()
    return recommender


class Prepared(NamedTuple):
    log: PreparedLog
    recommender: Recommender
    memory: Examples
    proxies: list[DenseModel]
    targets: Examples
    slow_NP: torch.Tensor


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    log = write_distinct_blocks(tmp_path_factory.mktemp("pool"))
    recommender = new_recommender(model(0), log, SMALL.dim, SMALL.training)
    for stage in (1, 2):
        learn_block(recommender, log, log.block(stage), SMALL.training, 0)
    doubled(recommender)
    draw = torch.Generator().manual_seed(1)
    memory = Examples(
        torch.randn(50, 3, 4, generator=draw, dtype=torch.float64),
        torch.rand(50, 2, generator=draw, dtype=torch.float64),
    )
    proxies = [model(seed).double() for seed in (1, 2)]
    rows = joined(list(log.chunks(log.block(2))))
    emb_NFD = recommender.tables(torch.tensor(rows.id_NF).long()).detach()
    teacher_NT = predict(recommender.dense, emb_NFD).sigmoid()
    targets = Examples(emb_NFD, teacher_NT)
    slow_P = [
        per_example_gradients(proxy.eval(), targets) @ per_example_gradients(proxy, memory).sum(0)
        for proxy in proxies
    ]
    return Prepared(log, recommender, memory, proxies, targets, torch.stack(slow_P, 1).detach())


def scorer(prepared: Prepared, part_rows: int | None = None) -> LocalScorer:
    return LocalScorer(
        PartScorer(prepared.recommender, prepared.log, prepared.log.block(2)), "teacher", part_rows
    )


def influence(prepared: Prepared) -> BlockInfluence:
    """As a scorer has it: its own models take the weights that came with the directions."""
    directions = proxy_directions(prepared.proxies, prepared.memory)
    return BlockInfluence([model(9).double() for _ in directions], directions, torch.device("cpu"))


@pytest.mark.parametrize("part_rows", [None, 33])
def test_the_alignment_of_a_row_is_its_summed_influence(prepared: Prepared, part_rows: int | None) -> None:
    """Gradient by gradient, to 1e-10 (eq. 16)."""
    aligned = scorer(prepared, part_rows).align(influence(prepared))
    assert [part.first for part in aligned] == list(range(0, ROWS, part_rows or ROWS))
    alignment_NP = np.concatenate([part.alignment_NP for part in aligned])
    assert alignment_NP.dtype == np.float64 and alignment_NP.shape == (ROWS, PROXIES)
    np.testing.assert_allclose(alignment_NP, prepared.slow_NP, rtol=1e-10)


def test_targets_have_the_labels_of_the_run(prepared: Prepared) -> None:
    rows = joined(list(prepared.log.chunks(prepared.log.block(2))))
    label_NT = torch.tensor(rows.label_NT).double()
    of_log = LocalScorer(scorer(prepared).parts, "real").align(influence(prepared))[0].alignment_NP
    real, proxy = prepared.targets._replace(label_NT=label_NT), prepared.proxies[1]
    expected = summed_influence(loss_of(proxy), dense_params(proxy), sources=prepared.memory, targets=real)
    np.testing.assert_allclose(of_log[:, 1], expected, rtol=1e-10)
    assert torch.equal(target_labels("real", label_NT - 3, label_NT), label_NT)


def slow_hard(prepared: Prepared, ratio: float, seed: int) -> np.ndarray:
    """Whether a row is among the lowest under each proxy; [N, P]."""
    value_NP = prepared.slow_NP.numpy().astype(np.float32)
    hash_N, hard_NP = row_hash(seed, np.arange(ROWS)), np.zeros((ROWS, PROXIES), bool)
    for proxy in range(PROXIES):
        hard_NP[np.lexsort((hash_N, value_NP[:, proxy]))[: max(1, round(ratio * ROWS))], proxy] = True
    return hard_NP


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("part_rows", [None, 20])
def test_hard_rows_are_the_lowest_of_the_block(
    prepared: Prepared, ratio: float, part_rows: int | None
) -> None:
    """Under any of the proxies, wherever the block is cut."""
    own = scorer(prepared, part_rows)
    aligned = own.align(influence(prepared))
    cells = hard_cells(own, aligned, proxies=PROXIES, ratio=ratio, seed=4)
    expected = slow_hard(prepared, ratio, 4)
    assert (expected.sum(0) == max(1, round(ratio * ROWS))).all()
    found = np.concatenate([cells(part) for part in aligned])
    assert np.array_equal(found == HARD, expected.any(1))
    counts = sum(cells.counted(part) for part in aligned)
    assert np.array_equal(counts, [(found == REST).sum(), (found == HARD).sum()])  # type: ignore[arg-type]


def test_rows_that_are_all_alike_are_split_by_their_hash() -> None:
    part = AlignedPart(0, np.zeros((500, 1)))

    class OnePart:
        class block:  # noqa: N801
            rows = 500

        def gather(self, columns: Any, work: Any) -> Iterator[Any]:
            return map(work, columns)

    cells = hard_cells(OnePart(), [part], proxies=1, ratio=0.1, seed=0)  # type: ignore[arg-type]
    assert isinstance(cells, HardCells) and cells.counted(part).tolist() == [450, 50]


def changed(outer: dict[str, Any], **values: Any) -> RunConfig:
    config = SMALL.model_dump()
    config.update(values)
    config["method"]["outer"].update(outer)
    return RunConfig.model_validate(config)


def numbers(prepared: Prepared, pool: Pool) -> list[int]:
    """Row numbers of a pool, told by their embeddings."""
    places: dict[bytes, list[int]] = {}
    for row, emb_FD in enumerate(prepared.targets.emb_NFD.numpy()):
        places.setdefault(emb_FD.tobytes(), []).append(row)
    return [places[emb_FD.tobytes()].pop(0) for emb_FD in EmbeddedRows.joined(pool.parts).emb_NFD]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("part_rows", [None, 50])
def test_the_pool_has_its_share_of_hard_rows_and_weights_for_the_block(
    prepared: Prepared, share: float, part_rows: int | None
) -> None:
    config = changed({"hard_share": share}, pool_rows=40)
    pool = draw_pool(scorer(prepared, part_rows), 2, config, lambda: influence(prepared))
    seed = derived_seed(SMALL.seed, "pool", 2)
    hard_N = slow_hard(prepared, RATIO, seed).any(1)
    rows = EmbeddedRows.joined(pool.parts)
    hard = min(int(hard_N.sum()), round(share * 40))
    assert np.bincount(rows.cell_N).tolist() == [40 - hard, hard]
    hash_N = row_hash(seed, np.arange(ROWS))
    expected: list[int] = []
    for cell, count in ((False, 40 - hard), (True, hard)):
        of_cell = np.flatnonzero(hard_N == cell)
        expected += of_cell[np.argsort(hash_N[of_cell])][:count].tolist()
    drawn = np.array(sorted(expected))
    assert np.array_equal(rows.emb_NFD, prepared.targets.emb_NFD.numpy()[drawn])
    assert np.array_equal(rows.cell_N, hard_N[drawn])
    targets, weight_N = pool.targets("teacher")
    torch.testing.assert_close(targets.label_NT, prepared.targets.label_NT[drawn])
    # Each row stands for others of its cell, all together for the block.
    assert weight_N[rows.cell_N == HARD].sum().item() == pytest.approx(hard_N.sum())
    assert weight_N.sum().item() == pytest.approx(ROWS)


@pytest.mark.parametrize(
    ("outer", "pool_rows"),
    [
        ({"hard_share": 0.0}, 40),
        ({"target_selection": False}, 40),
        ({"iterations": 0}, 40),
        ({}, ROWS),
        ({}, 1000),
    ],
)
def test_without_hard_rows_the_pool_is_even_and_no_row_is_aligned(
    prepared: Prepared, outer: dict[str, Any], pool_rows: int
) -> None:
    def never() -> Any:
        raise AssertionError("directions were asked for")

    pool = draw_pool(scorer(prepared, 30), 2, changed(outer, pool_rows=pool_rows), never)
    seed, rows = derived_seed(SMALL.seed, "pool", 2), min(pool_rows, ROWS)
    expected = np.sort(np.argsort(row_hash(seed, np.arange(ROWS)))[:rows])
    found = EmbeddedRows.joined(pool.parts)
    assert np.array_equal(found.emb_NFD, prepared.targets.emb_NFD.numpy()[expected])
    assert pool.weights == (1.0,) and not found.cell_N.any()


def test_a_block_with_fewer_rows_of_the_rest_fills_the_pool_with_hard_ones(prepared: Prepared) -> None:
    config = changed({"hard_share": 0.1, "hard_ratio": 0.9}, pool_rows=100)
    pool = draw_pool(scorer(prepared), 2, config, lambda: influence(prepared))
    counts = np.bincount(EmbeddedRows.joined(pool.parts).cell_N, minlength=2)
    hard_N = slow_hard(prepared, 0.9, derived_seed(SMALL.seed, "pool", 2)).any(1)
    rest = int((~hard_N).sum())
    assert rest < 90 and counts.tolist() == [rest, 100 - rest]


def test_weighted_targets_are_the_lowest_of_the_block(prepared: Prepared) -> None:
    """Of a pool with many hard rows, told by the weights as the lowest tenth of what they stand for."""
    proxy = prepared.proxies[0]
    order_N = prepared.slow_NP[:, 0].argsort()
    hard_N, rest_N = order_N[:14], order_N[14:]
    # All hard rows and a seventh of the rest, in some order.
    rows_N = torch.cat([hard_N, rest_N[::7]])[torch.randperm(32, generator=torch.Generator().manual_seed(0))]
    weight_N = torch.where(torch.isin(rows_N, hard_N), 1.0, 7.0)
    given: dict[str, Any] = {"real": prepared.targets.take(rows_N), "memory": prepared.memory}
    loss, params = loss_of(proxy), dense_params(proxy)
    found_N = rows_N[hard_targets(loss, params, **given, ratio=0.1, weight_N=weight_N)]
    # As many targets as without weights: of the hard ones those that come first.
    assert len(found_N) == round(0.1 * 32) == 3
    first = [row for row in rows_N.tolist() if row in hard_N.tolist()][:3]
    assert sorted(found_N.tolist()) == sorted(first)
    assert found_N.tolist() == sorted(first, key=prepared.slow_NP[:, 0].tolist().__getitem__)
    more_N = rows_N[hard_targets(loss, params, **given, ratio=0.5, weight_N=weight_N)]
    half = sum(weight_N.tolist()) / 2
    upto = np.cumsum(
        [7.0 if row in rest_N.tolist() else 1.0 for row in order_N.tolist() if row in rows_N.tolist()]
    )
    assert abs(int((upto <= half).sum()) - 16) > 2  # the weights matter
    assert len(more_N) == min(16, int((upto - 3.5 <= half).sum()))
    even = hard_targets(loss, params, **given, ratio=0.5)
    assert torch.equal(even, hard_targets(loss, params, **given, ratio=0.5, weight_N=torch.ones(32)))
    assert Rows.joined([Rows(np.array([1]), np.array([0]))]).row_N.tolist() == [1]

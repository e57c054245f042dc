"""Choices by quota and hash against a plain sort, however the rows are cut into parts.

Shape suffixes: N rows, C cells.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.distillation.row_choice import BINS, Digits, Draw, Lowest, Rows, row_hash, whole_block
from diet_ray.errors import DataError
from diet_ray.seeding import derived_seed

ROWS = 400


def parts(rows: int, cuts: list[int]) -> list[np.ndarray]:
    """Row numbers 0 .. rows - 1, cut at some places."""
    edges = sorted({0, rows, *cuts})
    return [np.arange(a, b) for a, b in pairwise(edges)]


def chosen(draw: Draw, cell_N: np.ndarray, cuts: list[int]) -> list[Rows]:
    """The choice, by part."""
    pieces = parts(len(cell_N), cuts)
    found = draw.chosen([draw.candidates(Rows(row_N, cell_N[row_N])) for row_N in pieces])
    assert found is not None
    return found.split([int(row_N[0]) for row_N in pieces])


def test_hashes_are_even_and_differ_by_row_and_seed() -> None:
    row_N = np.arange(100_000)
    hash_N = row_hash(0, row_N)
    assert len(np.unique(hash_N)) == len(row_N)
    assert np.array_equal(hash_N[500:600], row_hash(0, row_N[500:600]))
    assert not (hash_N == row_hash(1, row_N)).any()
    counts = np.bincount((hash_N >> np.uint64(60)).astype(int), minlength=16)
    assert np.abs(counts - 6250).max() < 5 * 6250**0.5
    # Neighbours are as unlike as any two rows.
    assert abs(np.corrcoef(hash_N[1:].astype(float), hash_N[:-1].astype(float))[0, 1]) < 0.02


def test_the_hash_is_splitmix64() -> None:
    """Its first outputs from state 0 (Vigna, prng.di.unimi.it/splitmix64.c), at the rows that give them."""
    start = derived_seed(5, "row hash")
    inverse = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
    rows = [(((n + 1) * 0x9E3779B97F4A7C15 - start) * inverse) % (1 << 64) for n in range(3)]
    row_N = np.array(rows, np.uint64).astype(np.int64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert row_hash(5, row_N).tolist() == expected


@settings(max_examples=60)
@given(
    seed=st.integers(0, 100),
    cuts=st.lists(st.integers(1, ROWS - 1), max_size=6),
    cells=st.integers(1, 40),
    share=st.floats(0.01, 1.0),
)
def test_a_cell_gives_its_smallest_hashes_whatever_the_cut(
    seed: int, cuts: list[int], cells: int, share: float
) -> None:
    cell_N = np.random.default_rng(seed).integers(cells, size=ROWS) * 7
    cell_C, count_C = np.unique(cell_N, return_counts=True)
    quota_C = np.maximum(1, (share * count_C).astype(int))
    found = Rows.joined(chosen(Draw(seed, cell_C, count_C, quota_C), cell_N, cuts))
    hash_N = row_hash(seed, np.arange(ROWS))
    for cell, quota in zip(cell_C, quota_C, strict=True):
        rows = sorted(np.flatnonzero(cell_N == cell).tolist(), key=lambda row: hash_N[row])
        assert found.row_N[found.cell_N == cell].tolist() == sorted(rows[:quota])
    assert (np.diff(found.row_N) > 0).all() and len(found.row_N) == quota_C.sum()
    assert np.array_equal(found.cell_N, cell_N[found.row_N])


def test_rows_come_back_to_the_part_they_are_of() -> None:
    draw = whole_block(ROWS, 50, seed=3)
    found = chosen(draw, np.zeros(ROWS, int), [10, 11, 300])
    assert found[2].row_N.min() >= 11 and found[2].row_N.max() < 300 <= found[3].row_N.min()
    assert sum(len(part.row_N) for part in found) == 50
    assert set(found[0].row_N) <= set(range(10)) and set(found[1].row_N) <= {10}


def test_cells_without_a_quota_give_nothing() -> None:
    cell_N = np.arange(ROWS) % 5
    found = Rows.joined(
        chosen(Draw(0, np.array([1, 4]), np.array([80, 80]), np.array([3, 80])), cell_N, [200])
    )
    assert np.bincount(found.cell_N, minlength=5).tolist() == [0, 3, 0, 0, 80]


def test_few_candidates_are_sent_of_a_large_cell() -> None:
    """Less than twice what is chosen of a thousand, some twenty of one."""
    draw = whole_block(1_000_000, 1000, seed=0)
    rows = Rows(np.arange(1_000_000), np.zeros(1_000_000, int))
    assert len(draw.candidates(rows).row_N) == 1000  # of a part alone no more than the quota
    halves = [draw.candidates(Rows(h, np.zeros(len(h), int))) for h in np.array_split(rows.row_N, 20)]
    assert 1000 <= sum(len(half.row_N) for half in halves) < 1400
    one = [
        whole_block(1_000_000, 1, 0).candidates(Rows(h, np.zeros(len(h), int)))
        for h in np.array_split(rows.row_N, 20)
    ]
    assert sum(len(part.row_N) for part in one) <= 20


def test_where_chance_left_too_few_candidates_all_rows_are_looked_at() -> None:
    """The count promises more rows than have small hashes; every row of the cell is a candidate then."""
    draw = Draw(0, np.array([0]), np.array([10**9]), np.array([3]))
    rows = Rows(np.arange(20), np.zeros(20, int))
    assert draw.chosen([draw.candidates(rows)]) is None
    every = draw._replace(every=True)
    found = every.chosen([every.candidates(rows)])
    assert found is not None
    assert set(found.row_N) == set(np.argsort(row_hash(0, rows.row_N))[:3])
    short = Rows(np.arange(2), np.zeros(2, int))
    with pytest.raises(DataError, match="scores of the block have changed"):
        every.chosen([every.candidates(short)])


def lowest(value_N: np.ndarray, rank: int, cuts: list[int], seed: int = 0) -> tuple[np.ndarray, int]:
    """Whether each row is among the lowest, and how often the parts were counted."""
    digits = [Digits(seed, row_N, value_N[row_N]) for row_N in parts(len(value_N), cuts)]
    search, rounds = Lowest(rank), 0
    while not search.done:
        search, rounds = search.narrowed(sum(d.counted(search) for d in digits)), rounds + 1  # type: ignore[arg-type]
    return np.concatenate([d.among(search) for d in digits]), rounds


@settings(max_examples=60)
@given(
    value_N=st.lists(st.floats(-1024, 1024, width=32), min_size=1, max_size=50),
    cuts=st.lists(st.integers(1, 49), max_size=4),
    share=st.floats(0.0, 1.0),
)
def test_the_lowest_rows_are_those_of_a_sort(value_N: list[float], cuts: list[int], share: float) -> None:
    """Equal values go by the hash of the row."""
    values = np.array(value_N, np.float32)
    rank = max(1, round(share * len(values)))
    found, _ = lowest(values, rank, [cut for cut in cuts if cut < len(values)])
    order = np.lexsort((row_hash(0, np.arange(len(values))), values))
    assert np.flatnonzero(found).tolist() == sorted(order[:rank].tolist())


def test_values_that_are_all_equal_go_by_their_hash() -> None:
    for values in (np.zeros(3000), -np.zeros(3000), np.full(3000, -2.5)):
        found, rounds = lowest(values.astype(np.float32), 300, [1000])
        assert found.sum() == 300 and 3 <= rounds <= 6
        assert set(np.flatnonzero(found)) == set(np.argsort(row_hash(0, np.arange(3000)))[:300])


def test_two_rounds_are_enough_for_different_values() -> None:
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    found, rounds = lowest(values, 500, [])
    assert rounds <= 2 and set(np.flatnonzero(found)) == set(np.argsort(values)[:500])


def test_an_influence_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="not a number"):
        Digits(0, np.arange(2), np.array([0.5, np.nan]))


def test_infinite_values_have_their_place() -> None:
    found, _ = lowest(np.array([1.0, -np.inf, np.inf, 0.0], np.float32), 2, [])
    assert found.tolist() == [False, True, False, True]
    assert BINS == 65_536

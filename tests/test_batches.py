"""Shuffling loses no row and does not see how the rows were cut."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.log.batches import EncodedRows, joined, shuffled_batches

ROWS = 200


def log() -> EncodedRows:
    number_N = np.arange(ROWS, dtype=np.int32)
    return EncodedRows(np.stack([number_N, number_N * 2], 1), (number_N[:, None] % 2).astype(np.uint8))


def batches(cuts: list[int], batch_size: int, buffer_rows: int, seed: int) -> list[EncodedRows]:
    edges = [0, *sorted(cuts), ROWS]
    chunks = [log().take(slice(a, b)) for a, b in itertools.pairwise(edges)]
    draw = np.random.default_rng(seed)
    return list(shuffled_batches(chunks, batch_size=batch_size, buffer_rows=buffer_rows, draw=draw))


cut_points = st.lists(st.integers(0, ROWS), max_size=6)


@given(
    a=cut_points, b=cut_points, size=st.integers(1, 250), buffer=st.integers(1, 250), seed=st.integers(0, 9)
)
def test_the_cut_into_chunks_does_not_show(
    a: list[int], b: list[int], size: int, buffer: int, seed: int
) -> None:
    first, second = batches(a, size, buffer, seed), batches(b, size, buffer, seed)
    assert [x.id_NF.tolist() for x in first] == [y.id_NF.tolist() for y in second]
    assert all(x.rows == size for x in first[:-1])
    whole = joined(first)
    assert sorted(whole.id_NF[:, 0].tolist()) == list(range(ROWS))
    assert (whole.id_NF[:, 0] % 2 == whole.label_NT[:, 0]).all()


def test_rows_stay_in_their_window_and_move_within_it() -> None:
    order_N = joined(batches([], 16, 50, seed=1)).id_NF[:, 0]
    for start in range(0, ROWS, 50):
        window = order_N[start : start + 50]
        assert sorted(window.tolist()) == list(range(start, start + 50))
        assert window.tolist() != sorted(window.tolist())


def test_another_seed_is_another_order() -> None:
    one, two = (joined(batches([], 16, ROWS, seed=s)).id_NF[:, 0].tolist() for s in (1, 2))
    assert one != two


def test_a_window_of_one_row_keeps_the_order_of_the_stream() -> None:
    assert joined(batches([7, 90], 16, 1, seed=1)).id_NF[:, 0].tolist() == list(range(ROWS))

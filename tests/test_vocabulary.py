"""An id keeps its row, and nothing later than a block shows in its encoding."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.errors import DataError
from diet_ray.log.vocabulary import HashedEncoder, Vocabulary, counted, merged_counts

Blocks = list[dict[str, int]]
blocks_of_counts = st.lists(
    st.dictionaries(st.sampled_from("abcdefghij"), st.integers(1, 5)), min_size=2, max_size=4
)


def counts(block: dict[str, int]) -> pa.Table:
    return pa.table({"id": pa.array(list(block), pa.string()), "count": pa.array(block.values(), pa.int64())})


def encode_stream(blocks: Blocks, min_count: int) -> tuple[list[list[int]], list[pa.Table]]:
    """Each block's ids under the vocabulary as it stands after that block."""
    vocabulary, rows, increments = Vocabulary(), [], []
    for block in blocks:
        increments.append(vocabulary.grow(counts(block), min_count))
        rows.append(vocabulary.encode(pa.array(sorted(block), pa.string())).tolist())
    return rows, increments


@given(blocks=blocks_of_counts, later=blocks_of_counts, min_count=st.integers(1, 3))
def test_the_future_never_shows(blocks: Blocks, later: Blocks, min_count: int) -> None:
    rows, increments = encode_stream(blocks, min_count)
    other_rows, other_increments = encode_stream(blocks + later, min_count)
    assert other_rows[: len(blocks)] == rows
    assert all(a.equals(b) for a, b in zip(increments, other_increments, strict=False))


@given(blocks=blocks_of_counts, min_count=st.integers(1, 3))
def test_an_id_keeps_its_row_and_stored_increments_rebuild_the_vocabulary(
    blocks: Blocks, min_count: int
) -> None:
    vocabulary, rebuilt, ids = Vocabulary(), Vocabulary(), pa.array(list("abcdefghij"))
    before = np.zeros(10, dtype=np.int32)
    for block in blocks:
        rebuilt.extend(vocabulary.grow(counts(block), min_count))
        now = vocabulary.encode(ids)
        assert (now[before > 0] == before[before > 0]).all()
        before = now
    assert rebuilt.encode(ids).tolist() == before.tolist()
    assert sorted(before[before > 0]) == list(range(1, vocabulary.rows))


def test_new_ids_follow_by_count_then_id_whatever_their_order() -> None:
    table = counts({"c": 2, "a": 2, "b": 9, "rare": 1})
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        increment = Vocabulary().grow(table.take(order), min_count=2)
        assert increment.to_pydict() == {"id": ["b", "a", "c"], "row": [1, 2, 3]}


def test_numbers_follow_by_value_before_text() -> None:
    """As version 0.1.0 had it where a file stored them as int64."""
    ids = ["10", "9", "-1", "-10", "007", "a", "0", str(2**63), str(-(2**63)), "9" * 39, "-0"]
    increment = Vocabulary().grow(counts(dict.fromkeys(ids, 1)), min_count=1)
    numbers = [str(-(2**63)), "-10", "-1", "0", "9", "10", str(2**63)]
    assert increment["id"].to_pylist() == [*numbers, "-0", "007", "9" * 39, "a"]


def test_an_increment_of_version_0_1_0_holds_whole_numbers_as_such() -> None:
    vocabulary = Vocabulary()
    vocabulary.extend(pa.table({"id": pa.array([7, -3]), "row": pa.array([1, 2], pa.int32())}))
    vocabulary.extend(pa.table({"id": ["x"], "row": pa.array([3], pa.int32())}))
    assert vocabulary.encode(pa.array(["x", "7", "-3", None])).tolist() == [3, 1, 2, 0]


@given(blocks=blocks_of_counts, wanted=st.lists(st.sampled_from("abcdefghijk")))
def test_a_vocabulary_of_wanted_ids_encodes_those_alike(blocks: Blocks, wanted: list[str]) -> None:
    whole, some, ids = Vocabulary(), Vocabulary(pa.array(wanted, pa.string())), pa.array(list("abcdefghijk"))
    for block in blocks:
        some.extend(whole.grow(counts(block), min_count=1))
    assert some.rows == whole.rows
    kept = np.isin(ids.to_pylist(), wanted)
    assert some.encode(ids).tolist() == np.where(kept, whole.encode(ids), 0).tolist()


@given(st.lists(st.lists(st.one_of(st.none(), st.sampled_from("abcd"))), max_size=6))
def test_counts_of_parts_add_up_to_those_of_the_whole(parts: list[list[str | None]]) -> None:
    total = merged_counts(counted(pa.array(part, pa.string())) for part in parts)
    ids = [id for part in parts for id in part if id is not None]
    assert dict(zip(total["id"].to_pylist(), total["count"].to_pylist(), strict=True)) == Counter(ids)
    assert (total["id"].type, total["count"].type) == (pa.string(), pa.int64())


@pytest.mark.parametrize("ids", [[7, None, 8, 9], ["7", None, "8", "9"]])
def test_missing_and_unknown_ids_have_row_0(ids: list) -> None:
    vocabulary, column = Vocabulary(), pa.array(ids)
    vocabulary.grow(pa.table({"id": pa.array(ids[:3]), "count": [5, 5, 5]}), min_count=1)
    assert vocabulary.encode(column).tolist() == [1, 0, 2, 0]


def test_an_increment_that_does_not_follow_is_refused() -> None:
    vocabulary = Vocabulary()
    increment = vocabulary.grow(counts({"a": 1}), min_count=1)
    with pytest.raises(DataError, match="starts at row 1, expected rows from 2 on"):
        vocabulary.extend(increment)
    with pytest.raises(DataError, match="id 'a' twice"):
        vocabulary.extend(pa.table({"id": ["a"], "row": pa.array([2], pa.int32())}))


def test_hashed_rows_are_fixed_and_within_the_table() -> None:
    """The literal rows guard against a change of hash, which would scramble every trained table."""
    encoder, ids = HashedEncoder(1000), pa.array([str(i) for i in range(5000)])
    row_N = encoder.encode(ids)
    assert row_N.min() >= 1 and row_N.max() < encoder.rows and len(set(row_N.tolist())) > 950
    assert encoder.encode(pa.array([17, None])).tolist() == [row_N[17], 0]
    assert encoder.encode(pa.array(["user-1", "user-2"])).tolist() == [43, 49]

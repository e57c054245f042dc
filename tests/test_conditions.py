"""Labels and filters compare by value, and a bad value spoils its own row only."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.errors import ConfigError, DataError
from diet_ray.log.declaration import Condition, TaskConfig
from diet_ray.log.normalise import Normalised, normalise
from diet_ray.log.source import Chunk
from diet_ray.log.values.columns import plain
from diet_ray.log.values.conditions import label, verdict
from tests.small_log import small_schema
from tests.test_ids import NUMBER_TYPES, TEXT_TYPES, as_type

numbers = st.one_of(st.integers(-3, 8), st.sampled_from([2**53, 2**53 + 1, 10**18 + 1, 2**63, -(2**53) - 1]))
BAD_WORDS = ["unknown", "-", "", "NA", "5,0", "1_0", "0x5", "tru", "٥"]


def normalised(columns: dict[str, Any], **schema: Any) -> Normalised:
    rows = len(next(iter(columns.values())))
    table = pa.table(
        {"ts": [1] * rows, "user": [str(n) for n in range(rows)], "clicked": [0] * rows, **columns}
    )
    return normalise(Chunk("log.csv", pa.array(range(1, rows + 1)), table), small_schema(**schema))


@given(st.lists(st.one_of(st.none(), numbers), min_size=1, max_size=8), numbers)
@settings(deadline=None)
def test_numbers_compare_by_value_in_every_type(values: list[int | None], bound: int) -> None:
    wanted = {
        "equals": [value is not None and value == bound for value in values],
        "at_least": [value is not None and value >= bound for value in values],
        "at_most": [value is not None and value <= bound for value in values],
    }
    for kind in [*NUMBER_TYPES, *TEXT_TYPES]:
        if (column := as_type(values, kind)) is not None:
            for test, passes in wanted.items():
                result = verdict(plain(column), Condition(**{test: bound}))
                assert result.passes_N.tolist() == passes, (kind, test)
                assert result.missing_N.tolist() == [value is None for value in values]
                assert not result.bad_N.any()
    close = pa.array([f"{bound}.0", f"{bound - 1}.{'9' * 30}", f"{bound}.{'0' * 30}1"])
    for column in (close, pa.array([Decimal(text) for text in close.to_pylist()], pa.decimal256(70, 31))):
        assert verdict(column, Condition(equals=bound)).passes_N.tolist() == [True, False, False]
        if bound > 0:
            assert verdict(column, Condition(at_least=bound)).passes_N.tolist() == [True, False, True]
            assert verdict(column, Condition(at_most=bound)).passes_N.tolist() == [True, True, False]
    texts = pa.array([None if v is None else f"{v}.00" for v in values], pa.string())
    assert verdict(texts, Condition(equals=bound)).passes_N.tolist() == wanted["equals"]


@pytest.mark.parametrize("equals", [True, False])
@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("yes", "no"),
        ("TRUE", "False"),
        ("on", "off"),
        ("y", "N"),
        ("1", "0"),
        ("1.0", "0"),
        (True, False),
        (1, 0),
        (1.0, 0.0),
        (Decimal(1), Decimal(0)),
    ],
)
def test_yes_is_true_however_it_is_written(yes: Any, no: Any, equals: bool) -> None:
    result = verdict(plain(pa.array([yes, no, None, yes])), Condition(equals=equals))
    assert result.passes_N.tolist() == [equals, not equals, False, equals]
    assert result.missing_N.tolist() == [False, False, True, False] and not result.bad_N.any()


TESTS = [{"equals": True}, {"equals": 5}, {"equals": 5.0}, {"at_least": 4.5}, {"at_least": 2**60}, None]
GOOD = {
    "equals": ["true", "false"],
    "number": ["5", "5.0", "4", "-7e2"],
    None: ["0", "1", "0.0", "true", "False"],
}


@pytest.mark.parametrize("test", TESTS)
@given(data=st.data())
@settings(deadline=None, max_examples=20)
def test_a_bad_word_spoils_its_own_row_only(test: dict | None, data: Any) -> None:
    words = GOOD[None if test is None else "equals" if test == {"equals": True} else "number"]
    values = data.draw(
        st.lists(st.sampled_from([*words, *BAD_WORDS[:2], *BAD_WORDS[4:]]), min_size=1, max_size=8)
    )
    task = [{"name": "clicked", **(test or {})}]
    result = normalised({"clicked": values}, tasks=task, malformed="quarantine")
    good = [n for n, value in enumerate(values) if value in words]
    assert result.rows["user"].to_pylist() == [str(n) for n in good]
    assert result.rejected["row"].to_pylist() == [n + 1 for n in range(len(values)) if n not in good]
    alone = [normalised({"clicked": [values[n]]}, tasks=task).rows["clicked"][0].as_py() for n in good]
    assert result.rows["clicked"].to_pylist() == alone


def test_quoted_text_is_compared_as_written() -> None:
    texts = pa.array(["5", "5.0", "yes", "NO", "oops", None])
    for equals, passes in [("5", [0]), ("5.0", [1]), ("yes", [2]), ("NO", [3]), ("no", [])]:
        result = verdict(texts, Condition(equals=equals))
        assert [n for n, passed in enumerate(result.passes_N) if passed] == passes and not result.bad_N.any()
    assert verdict(pa.array([5.0, 7.0]), Condition(equals="5")).passes_N.tolist() == [True, False]
    assert verdict(pa.array([True, False]), Condition(equals="yes")).passes_N.tolist() == [True, False]
    with pytest.raises(DataError, match=r"log\.csv, column clicked cannot be compared: 'buy' is neither"):
        normalised({"clicked": [0]}, tasks=[{"name": "clicked", "equals": "buy"}])


def test_a_country_that_yaml_reads_as_false_is_said() -> None:
    columns = {"country": ["NO", "DE", "NO"]}
    with pytest.raises(DataError, match=r"row 2: country is not true or false as equals is .*quote it.*'DE'"):
        normalised(columns, where=[{"column": "country", "equals": False}])
    result = normalised(columns, where=[{"column": "country", "equals": "NO"}])
    assert result.rows["user"].to_pylist() == ["0", "2"]


@pytest.mark.parametrize("test", [{"at_least": 1}, {"at_most": 8}, {"equals": 3}])
def test_a_dash_among_prices_spoils_its_own_row_only(test: dict) -> None:
    columns = {"price": ["3", "-", "0", None, "9", "3.0"]}
    kept = {"at_least": ["0", "4", "5"], "at_most": ["0", "2", "5"], "equals": ["0", "5"]}[next(iter(test))]
    result = normalised(columns, where=[{"column": "price", **test}], malformed="quarantine")
    assert result.rows["user"].to_pylist() == kept
    assert result.rejected["row"].to_pylist() == [2]
    assert result.rejected["reason"][0].as_py().startswith("price is not a number")


def test_a_row_that_another_filter_leaves_out_may_hold_a_dash() -> None:
    where = [{"column": "price", "at_least": 1}, {"column": "kind", "equals": "sale"}]
    result = normalised({"price": ["-", "3"], "kind": ["gift", "sale"]}, where=where)
    assert result.rows["user"].to_pylist() == ["1"] and not result.rejected.num_rows


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.float64(), pa.decimal128(9, 2)])
def test_a_cap_counts_larger_numbers_as_itself(kind: pa.DataType) -> None:
    field = {"name": "place", "at_most": 8}
    result = normalised({"place": as_type([0, 7, 8, 9, 10**6, None], kind)}, fields=[field])
    assert result.rows["place"].to_pylist() == ["0", "7", "8", "8", "8", None]
    words = normalised({"place": ["7.0", "-", "9"]}, fields=[field], malformed="quarantine")
    assert words.rows["place"].to_pylist() == ["7", "8"] and words.rejected["row"].to_pylist() == [2]


def test_bytes_that_are_not_utf_8_spoil_their_row_where_they_are_read() -> None:
    bad = pa.array([b"a", b"\xff", b"b"])
    result = normalised(
        {"user": bad, "clicked": bad}, malformed="quarantine", tasks=[{"name": "clicked", "equals": "a"}]
    )
    assert result.rows["user"].to_pylist() == ["a", "b"] and result.rows["clicked"].to_pylist() == [1, 0]
    assert result.rejected["reason"].to_pylist() == ["user is not UTF-8 text"]
    numbers = pa.array([b"7", b"\xff", b"9", b"1"])
    for changes in (
        {"time": {"column": "user", "unit": "s"}},
        {"tasks": [{"name": "clicked", "from": "user", "at_least": 5}]},
        {"fields": [{"name": "user", "at_most": 8}]},
        {"where": [{"column": "user", "at_least": 0}]},
    ):
        result = normalised({"user": numbers}, malformed="quarantine", **changes)
        assert result.rows.num_rows == 3 and result.rejected["row"].to_pylist() == [2]


@pytest.mark.parametrize(
    "values", [[0, 1], [0.0, 1.0], [False, True], ["0", "1.0"], ["false", "TRUE"], [Decimal(0), Decimal(1)]]
)
def test_a_label_is_zero_or_one_of_any_type(values: list[Any]) -> None:
    result, bad_N, _ = label(plain(pa.array(values)), TaskConfig.model_validate({"name": "clicked"}))
    assert result.tolist() == [0, 1] and not bad_N.any()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"at_least": True}, "YAML reads a bare yes"),
        ({"at_least": float("nan")}, "finite"),
        ({"equals": float("inf")}, "finite|valid"),
    ],
)
def test_a_test_that_makes_no_sense_is_refused(task: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small_schema(tasks=[{"name": "clicked", **task}])

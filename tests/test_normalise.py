"""Raw values become times in ms, ids and labels of 0 and 1; what cannot is named, or set aside whole."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.errors import DataError
from diet_ray.log.normalise import Normalised, normalise
from diet_ray.log.source import Chunk
from tests.shop_log import shop_schema

DAY_MS = 86_400_000
MOMENT = "2017-03-04T05:06:07"
MOMENT_S = pd.Timestamp(MOMENT).value // 10**9


def normalised(columns: dict[str, Any], first_row: int = 0, **changes: Any) -> Normalised:
    """The columns, beside a valid one for each other column of the shop, as `normalise` returns them."""
    given = {name: x if isinstance(x, pa.Array) else pa.array(x) for name, x in columns.items()}
    rows = len(next(iter(given.values())))
    valid = {"user_id": "u", "item_id": 1, "brand": "b", "clicked": 0, "bought": 1, "rating": 3}
    valid |= {"ts": pd.Timestamp(MOMENT)}
    table = pa.table({**{name: pa.array([x] * rows) for name, x in valid.items()}, **given})
    row = pa.array(range(first_row + 1, first_row + 1 + table.num_rows))
    return normalise(Chunk("log.csv", row, table), shop_schema(**changes))


def times(values: Any, **time: Any) -> list[int]:
    return normalised({"ts": values}, time={"column": "ts", **time}).rows["ts"].to_pylist()


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (MOMENT_S, "s"),
        (float(MOMENT_S), "s"),
        (str(MOMENT_S), "s"),
        (MOMENT_S * 1000, "ms"),
        (MOMENT_S * 1_000_000, "us"),
        (MOMENT, "timestamp"),
        ("2017-03-04 05:06:07", "timestamp"),
        ("2017-03-04 07:06:07+02:00", "timestamp"),
        (pd.Timestamp(MOMENT), "timestamp"),
        (pd.Timestamp(MOMENT, tz="UTC").tz_convert("Asia/Shanghai"), "timestamp"),
    ],
)
def test_one_moment_is_one_time_in_every_unit(value: Any, unit: str) -> None:
    assert times([value], unit=unit) == [MOMENT_S * 1000]


@given(st.lists(st.integers(0, 2**52), min_size=1, max_size=20))
def test_microseconds_are_cut_and_not_rounded_into_the_next_block(us: list[int]) -> None:
    assert times(us, unit="us") == [value // 1000 for value in us]


@given(st.lists(st.integers(0, 2**47), min_size=1, max_size=20))
def test_milliseconds_written_as_fractions_of_a_second_are_kept(ms: list[int]) -> None:
    assert times([value / 1000 for value in ms], unit="s") == ms


def test_a_time_without_a_zone_stands_in_the_zone_of_the_schema() -> None:
    hour, aware = 3_600_000, pd.Timestamp(MOMENT, tz="UTC")
    assert times([MOMENT], zone="Asia/Shanghai") == [MOMENT_S * 1000 - 8 * hour]
    assert times([aware], zone="Asia/Shanghai") == [MOMENT_S * 1000]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/Sao_Paulo"])
def test_hour_and_weekday_are_those_of_the_zone(zone: str) -> None:
    seconds = [MOMENT_S + 7 * 3_600 * n for n in range(30)]
    fields = [{"name": part, "from": "ts", "as": part} for part in ("hour", "weekday")]
    rows = normalised({"ts": seconds}, time={"column": "ts", "unit": "s", "zone": zone}, fields=fields).rows
    local = [pd.Timestamp(s, unit="s", tz="UTC").tz_convert(zone) for s in seconds]
    assert rows["hour"].to_pylist() == [str(moment.hour) for moment in local]
    assert rows["weekday"].to_pylist() == [str(moment.dayofweek) for moment in local]


@pytest.mark.parametrize("column", [[829, 1111, 501], ["829", "1111", "0501"], [829.0, 1111.0, 501.0]])
def test_month_and_day_as_one_number_are_midnight_of_that_day(column: list) -> None:
    days = [pd.Timestamp(2014, month, day) for month, day in ((8, 29), (11, 11), (5, 1))]
    assert times(column, unit="mmdd", year=2014) == [day.value // 10**6 for day in days]


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("timestamp", "yesterday"),
        ("timestamp", "2017-02-30"),
        ("timestamp", None),
        ("timestamp", "9999999-01-01"),
        ("s", None),
        ("s", "noon"),
        ("s", float("nan")),
        ("ms", float("inf")),
        ("s", 1e15),
        ("us", "12:30"),
        ("mmdd", 1332),
        ("mmdd", 229),
        ("mmdd", None),
    ],
)
def test_a_time_that_is_missing_or_none_is_named_by_file_row_and_column(unit: str, value: Any) -> None:
    good = {"timestamp": MOMENT, "mmdd": 304}.get(unit, MOMENT_S)
    column = [str(good), value] if isinstance(value, str) else [good, value]
    time = {"column": "ts", "unit": unit, **({"year": 2014} if unit == "mmdd" else {})}
    with pytest.raises(DataError, match=r"log\.csv, row 2: ts is missing or not a time"):
        normalised({"ts": column}, time=time)


@pytest.mark.parametrize("ts", [MOMENT_S, float(MOMENT_S)])
def test_numbers_are_not_taken_for_timestamps(ts: float) -> None:
    with pytest.raises(DataError, match=r"log\.csv, column ts holds numbers: set time.unit to s, ms, us"):
        normalised({"ts": [ts]})


@pytest.mark.parametrize("zero_and_one", [[0, 1], [0.0, 1.0], [False, True], ["0", "1"]])
def test_labels_of_any_type_are_0_and_1(zero_and_one: list) -> None:
    label = normalised({"clicked": zero_and_one}).rows["clicked"]
    assert label.type == pa.uint8() and label.to_pylist() == [0, 1]


@pytest.mark.parametrize("bad", [2, -1, 0.5, "yes", None, float("nan")])
def test_a_label_that_is_neither_0_nor_1_is_named_by_file_row_and_column(bad: Any) -> None:
    """Rows count from 1 through the file, not through the piece of it that is in hand."""
    column = ["0", "1", bad] if isinstance(bad, str) else [0, 1, bad]
    with pytest.raises(DataError, match=r"log\.csv, row 1003: clicked is not 0 or 1: \{'clicked': "):
        normalised({"clicked": column}, first_row=1000)


@pytest.mark.parametrize("as_type", [int, float, str])
def test_a_label_tests_a_column_of_any_type(as_type: type) -> None:
    rating = [1, 2, 3, 4, 5]
    tasks = [
        {"name": "liked", "from": "rating", "at_least": 4},
        {"name": "two", "from": "rating", "equals": 2},
    ]
    rows = normalised({"rating": [as_type(x) for x in rating]}, tasks=tasks).rows
    assert rows["liked"].to_pylist() == [x >= 4 for x in rating]
    assert rows["two"].to_pylist() == [x == 2 for x in rating]


@pytest.mark.parametrize(("test", "says"), [("at_least", "missing or not a number"), ("equals", "missing")])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_value_has_no_label(missing: Any, test: str, says: str) -> None:
    tasks = [{"name": "liked", "from": "rating", test: 4}]
    with pytest.raises(DataError, match=rf"log\.csv, row 2: rating is {says}"):
        normalised({"rating": [4.0, missing]}, tasks=tasks)


def test_a_word_among_ratings_spoils_its_own_row_only() -> None:
    tasks = [{"name": "liked", "from": "rating", "at_least": 4}]
    good, _, rejected, _ = normalised({"rating": ["3", "oops", "10"]}, tasks=tasks, malformed="quarantine")
    assert good["liked"].to_pylist() == [0, 1]
    assert rejected["rating"].to_pylist() == ["oops"]


@pytest.mark.parametrize(
    ("test", "kept"), [({"at_least": 3}, [3, 5]), ({"at_most": 3}, [1, 3]), ({"equals": 3}, [3])]
)
def test_a_filter_keeps_the_rows_that_pass_and_drops_missing_ones(test: dict, kept: list[int]) -> None:
    where = [{"column": "rating", **test}]
    rows = normalised({"rating": [1, 3, None, 5], "item_id": [1, 3, 4, 5]}, where=where).rows
    assert rows["item_id"].to_pylist() == [str(id) for id in kept]


def test_a_row_that_is_filtered_out_may_be_malformed() -> None:
    columns = {"rating": [1, 5], "clicked": [7, 1], "ts": [None, pd.Timestamp(MOMENT)]}
    good, _, rejected, _ = normalised(columns, where=[{"column": "rating", "at_least": 2}])
    assert (good.num_rows, rejected.num_rows) == (1, 0)


def test_rows_are_numbered_in_the_file_also_behind_a_filter() -> None:
    columns = {"rating": [1, 5, 1, 5], "clicked": [0, 0, 0, 9]}
    with pytest.raises(DataError, match=r"log\.csv, row 4: clicked"):
        normalised(columns, where=[{"column": "rating", "equals": 5}])


def test_a_filter_over_values_that_cannot_be_compared_names_the_column() -> None:
    with pytest.raises(DataError, match=r"log\.csv, row 1: brand is not a number: \{'brand': 'a'\}"):
        normalised({"brand": ["a"]}, where=[{"column": "brand", "at_least": 3}])
    with pytest.raises(DataError, match=r"log\.csv, column brand cannot be compared"):
        normalised({"brand": [["a"]]}, where=[{"column": "brand", "equals": 3}])


def test_larger_values_count_as_the_cap() -> None:
    position = [0, 7, 8, 9, 1000, None]
    fields = [{"name": "position", "from": "item_id", "at_most": 8}]
    rows = normalised({"item_id": position}, fields=fields).rows
    assert rows["position"].to_pylist() == [None if x is None else str(min(x, 8)) for x in position]


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (pa.array([3, None], pa.int8()), ["3", None]),
        (pa.array([2**64 - 1, None], pa.uint64()), [str(2**64 - 1), None]),
        (pa.array([3.0, float("nan")]), ["3", None]),
        (pa.array(["x", None]).dictionary_encode(), ["x", None]),
        (pa.array(["x", None], pa.large_string()), ["x", None]),
    ],
)
def test_an_id_keeps_its_value_and_a_missing_one_stays_missing(ids: pa.Array, kept: list) -> None:
    assert normalised({"brand": ids}).rows["brand"].to_pylist() == kept


def test_a_column_that_cannot_hold_ids_is_named() -> None:
    with pytest.raises(DataError, match=r"log\.csv, column brand cannot be a field"):
        normalised({"brand": [["a", "list"]]})


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_quarantine_parts_the_rows_into_good_ones_and_ones_with_a_reason(
    bad: list[tuple[bool, bool]],
) -> None:
    ts = [None if late else pd.Timestamp(MOMENT) for late, _ in bad]
    clicked = [5 if wrong else 1 for _, wrong in bad]
    item = list(range(len(bad)))
    columns = {"ts": pa.array(ts, pa.timestamp("s")), "clicked": clicked, "item_id": item}
    good, _, rejected, _ = normalised(columns, first_row=70, malformed="quarantine")
    assert good["item_id"].to_pylist() == [str(i) for i in item if not any(bad[i])]
    assert rejected["row"].to_pylist() == [71 + i for i in item if any(bad[i])]
    assert set(rejected["file"].to_pylist()) <= {"log.csv"}
    wanted = [
        "ts is missing or not a time" if late else "clicked is not 0 or 1" for late, w in bad if late or w
    ]
    assert rejected["reason"].to_pylist() == wanted


@pytest.mark.parametrize("name", ["row", "file", "reason"])
def test_a_log_may_have_columns_named_as_those_of_the_quarantine(name: str) -> None:
    columns = {name: ["mine", "mine too"], "clicked": [1, 9]}
    good, _, rejected, _ = normalised(columns, first_row=70, fields=[name], malformed="quarantine")
    assert good[name].to_pylist() == ["mine"]
    assert rejected["row"].to_pylist() == [72]
    assert rejected[f"{name} of the log"].to_pylist() == ["mine too"]


def test_no_value_of_another_row_shows() -> None:
    draw = np.random.default_rng(0)
    columns = {"ts": MOMENT_S + draw.integers(DAY_MS, size=50), "item_id": draw.integers(9, size=50)}
    time = {"column": "ts", "unit": "s"}
    whole = normalised(columns, time=time).rows
    alone = [normalised({k: v[i : i + 1] for k, v in columns.items()}, time=time).rows for i in range(50)]
    assert pa.concat_tables(alone).equals(whole)

"""A schema means what its file says, and each fault in it is named before any data are read."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from diet_ray.errors import ConfigError
from diet_ray.log.schema import BUILT_IN, load_schema, parse_schema
from tests.shop_log import BLOCKS, EDGES, SHOP_YAML, shop_schema

SHOP_BLOCKS = yaml.safe_load(SHOP_YAML)["blocks"]
HOUR_MS = 3_600_000


def ms(moment: str, zone: str = "UTC") -> int:
    return pd.Timestamp(moment, tz=zone).value // 10**6


def test_a_users_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "myshop.yaml"
    path.write_text(SHOP_YAML)
    schema = load_schema(str(path))
    assert schema.field_names == ("user_id", "item_id", "brand", "hour")
    assert schema.task_names == ("clicked", "bought")
    assert schema.columns() == ["ts", "user_id", "item_id", "brand", "clicked", "bought"]
    assert schema.intervals() == {
        n: (ms(a), ms(b)) for n, (a, b) in zip(BLOCKS, pairwise(EDGES), strict=True)
    }


@pytest.mark.parametrize("dataset", BUILT_IN)
def test_a_built_in_schema_survives_being_stored(dataset: str) -> None:
    schema = load_schema(dataset)
    assert parse_schema(schema.plain(), dataset) == schema
    assert schema.name == dataset


def test_boundaries_stand_in_the_zone_of_the_schema() -> None:
    here = shop_schema(time={"column": "ts", "zone": "Asia/Shanghai"}).intervals()
    assert {name: (a + 8 * HOUR_MS, b + 8 * HOUR_MS) for name, (a, b) in here.items()} == (
        shop_schema().intervals()
    )


def test_a_boundary_with_an_offset_of_its_own_ignores_the_zone() -> None:
    test = ["2017-09-01T00:00:00+02:00", "2017-10-01T00:00:00Z"]
    time = {"column": "ts", "zone": "Asia/Shanghai"}
    history = [["2017-01-01", "2017-04-01"]]
    blocks = {**SHOP_BLOCKS, "history": history, "validation": ["2017-08-15", "2017-08-31"], "test": test}
    start, end = shop_schema(time=time, blocks=blocks).intervals()["test"]
    assert (start, end) == (ms("2017-08-31T22:00"), ms("2017-10-01"))


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_equal_time_blocks_follow_each_other_and_differ_by_no_more_than_rounding(parts: int) -> None:
    history = {"start": "2017-01-01", "end": "2017-07-01", "parts": parts}
    intervals = list(shop_schema(blocks={**SHOP_BLOCKS, "history": history}).intervals().values())[:parts]
    assert (intervals[0][0], intervals[-1][1]) == (ms("2017-01-01"), ms("2017-07-01"))
    assert all(end == start for (_, end), (start, _) in pairwise(intervals))
    lengths = [end - start for start, end in intervals]
    assert max(lengths) - min(lengths) <= 1


def test_a_bare_on_in_yaml_is_the_key_on() -> None:
    join = yaml.safe_load("[{files: users.csv, on: user_id}]")
    assert shop_schema(join=join).join[0].on == "user_id"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"taks": ["clicked"]}, "taks: Extra inputs are not permitted"),
        ({"time": {"column": "ts", "units": "s"}}, "time.units: Extra inputs"),
        ({"time": {"unit": "s"}}, "time.column: Field required"),
        (
            {"time": {"column": "ts", "unit": "min"}},
            "time.unit.*'timestamp', 's', 'ms', 'us', 'ns' or 'mmdd'",
        ),
        ({"time": {"column": "ts", "zone": "Mars/Olympus"}}, "no time zone Mars/Olympus"),
        ({"time": {"column": "ts", "unit": "mmdd"}}, "year belongs to unit mmdd"),
        ({"time": {"column": "ts", "unit": "s", "year": 2017}}, "year belongs to unit mmdd"),
        ({"fields": []}, "fields: .*at least 1"),
        ({"fields": [{"name": "hour", "from": "ts", "as": "minute"}]}, "fields.0.as: .*'hour' or 'weekday'"),
        ({"fields": [{"name": "hour", "from": "rating", "as": "hour"}]}, "field hour: hour is taken from ts"),
        ({"fields": ["user_id", "clicked"]}, "share the name clicked"),
        ({"fields": ["user_id", "ts"]}, "share the name ts"),
        ({"tasks": [{"name": "liked", "at_least": 4, "equals": 5}]}, "tasks.0: .*not both"),
        ({"fields": ["user_id", False]}, "fields.1: YAML reads a bare yes, no, on or off as False"),
        ({"missing": [None]}, "missing: YAML reads a bare word as None; put the text in quotation marks"),
        ({"tasks": [f"task{n}" for n in range(9)]}, "tasks: .*at most 8"),
        ({"where": [{"column": "rating"}]}, "where.0: .*exactly one of at_least, at_most, equals"),
        ({"where": [{"column": "rating", "at_least": 1, "at_most": 2}]}, "where.0: .*exactly one"),
        ({"encoder": {"kind": "hash"}}, "encoder: .*'vocabulary', 'hashed'"),
        (
            {"encoder": {"kind": "hashed", "buckets": 0}},
            "encoder.hashed.buckets: .*greater than or equal to 1",
        ),
        ({"encoder": {"kind": "vocabulary", "min_count": 0}}, "encoder.vocabulary.min_count"),
        ({"malformed": "ignore"}, "malformed: .*'error' or 'quarantine'"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_under_its_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        shop_schema(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"subsequent": ["2017-06-30", "2017-08-15"]}, "block subsequent starts before block 0002 ends"),
        (
            {"history": [["2017-04-01", "2017-07-01"], ["2017-01-01", "2017-04-01"]]},
            "0002 starts before block 0001",
        ),
        ({"test": ["2016-09-01", "2016-10-01"]}, "block test starts before block validation ends"),
        ({"validation": ["2017-09-01", "2017-08-15"]}, "block validation ends at or before its start"),
        ({"validation": ["2017-08-15", "2017-08-15"]}, "block validation ends at or before its start"),
        (
            {"history": {"start": "2017-07-01", "end": "2017-01-01", "parts": 2}},
            "block 0001 ends at or before",
        ),
        ({"history": {"start": "2017-01-01", "end": "2017-07-01", "parts": 0}}, "history.*parts"),
        (
            {"history": {"start": "2017-01-01", "end": "2017-07-01T00:00:00Z", "parts": 2}},
            "history.*time zone",
        ),
        ({"history": []}, "history.*at least 1"),
        ({"test": ["2017-09-01"]}, "blocks.test"),
        ({"test": ["2017-09-01", "soon"]}, "blocks.test.1"),
    ],
)
def test_blocks_that_overlap_or_run_backwards_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        shop_schema(blocks={**SHOP_BLOCKS, **changes})


def test_a_dataset_that_is_neither_built_in_nor_a_file_is_named_with_the_choice() -> None:
    with pytest.raises(
        ConfigError, match="no dataset 'movielens': use one of globo, kuairand, tmall, taobao"
    ):
        load_schema("movielens")


@pytest.mark.parametrize(("text", "says"), [("a: [", "is not YAML"), ("", "valid dictionary")])
def test_a_file_that_holds_no_schema_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"(?s)broken.yaml.*{says}"):
        load_schema(str(path))

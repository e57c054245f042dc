"""One moment is one time however it is written; what has two readings, or none, is said."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.errors import ConfigError, DataError
from diet_ray.log.declaration import TimeConfig
from diet_ray.log.normalise import REPEATED, SKIPPED, normalise
from diet_ray.log.source import Chunk
from diet_ray.log.values.clock import from_local, moment_ms
from diet_ray.log.values.columns import plain
from diet_ray.log.values.times import Times, times_of
from tests.small_log import prepared, small_schema

ZONES = ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata"]
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
EPOCH = datetime(1970, 1, 1)

# Microseconds between 1990 and 2037, some of them on whole seconds.
moments = st.one_of(
    st.integers(631_152_000_000_000, 2_114_380_800_000_000),
    st.integers(631_152_000, 2_114_380_800).map(lambda s: s * 1_000_000),
)


def read(values: Any, kind: pa.DataType | None = None, **time: Any) -> Times:
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return times_of(plain(column), TimeConfig(column="ts", **time), "log.csv")


def good(values: Any, kind: pa.DataType | None = None, **time: Any) -> list[int]:
    result = read(values, kind, **time)
    assert not result.bad_N.any()
    return result.ms_N.tolist()


@given(st.lists(moments, min_size=1, max_size=6), st.sampled_from(sorted(PER_SECOND)))
@settings(deadline=None)
def test_numbers_of_any_unit_and_type_are_cut_to_ms_exactly(us: list[int], unit: str) -> None:
    wanted = [value // 1_000 for value in us]
    exact = [Decimal(value) * PER_SECOND[unit] / 1_000_000 for value in us]
    texts = [f"{value:f}" for value in exact]
    assert good(texts, unit=unit) == wanted
    assert good([f" {text} " for text in texts], unit=unit) == wanted
    assert good(exact, pa.decimal128(38, 9), unit=unit) == wanted
    if unit != "ns":  # of which a float64 of today holds every 256th
        assert good([float(value) for value in exact], unit=unit) == wanted
    if all(value == int(value) for value in exact):
        assert good([int(value) for value in exact], pa.int64(), unit=unit) == wanted
        assert good([int(value) for value in exact], pa.uint64(), unit=unit) == wanted


@given(st.lists(moments, min_size=1, max_size=6), st.sampled_from(ZONES), st.integers(-12, 14), st.data())
@settings(deadline=None)
def test_iso_times_with_and_without_offset_stand_on_one_clock(
    us: list[int], zone: str, hours: int, data: Any
) -> None:
    """Any mix of forms in one column; local times in an hour that comes twice are left to another test."""
    offset, texts = timezone(timedelta(hours=hours)), []
    for value in us:
        moment = datetime.fromtimestamp(value // 1_000_000, UTC) + timedelta(microseconds=value % 1_000_000)
        local = moment.astimezone(ZoneInfo(zone))
        twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
        forms = [moment.isoformat(), moment.isoformat(" "), moment.astimezone(offset).isoformat()]
        forms += [moment.isoformat().replace("+00:00", "Z"), moment.isoformat(" ").replace("+00:00", " UTC")]
        if not twice:
            forms += [local.replace(tzinfo=None).isoformat(sep) for sep in " T"]
            forms += [local.strftime("%Y/%m/%d %H:%M:%S.%f"), local.strftime("%Y%m%dT%H:%M:%S.%f")]
        texts.append(data.draw(st.sampled_from(forms)))
    assert good(texts, zone=zone) == [value // 1_000 for value in us]


@given(st.lists(moments, min_size=1, max_size=6), st.sampled_from(ZONES))
@settings(deadline=None)
def test_timestamps_of_any_unit_and_zone_are_moments(us: list[int], zone: str) -> None:
    for unit, per_second in PER_SECOND.items():
        ticks = [value * per_second // 1_000_000 for value in us]
        wanted = [tick * 1_000 // per_second for tick in ticks]
        assert good(ticks, pa.timestamp(unit, zone), unit="s") == wanted
        assert good(ticks, pa.timestamp(unit)) == wanted


@pytest.mark.parametrize("zone", ZONES)
@given(st.integers(0, 60 * 24 * 365 * 40))
@settings(deadline=None, max_examples=30)
def test_local_times_are_those_of_the_time_zone_database(zone: str, minute: int) -> None:
    local = datetime(1990, 1, 1) + timedelta(minutes=minute)
    result = from_local(pa.array([(local - EPOCH) // timedelta(milliseconds=1)]).to_numpy(), zone)
    first, second = (local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1))
    if first <= second:
        assert result.ms_N[0] == first.timestamp() * 1_000
    assert (result.repeated_N[0], result.skipped_N[0]) == (first < second, first > second)


@pytest.mark.parametrize(
    ("zone", "local", "moment"),
    [
        ("Europe/Berlin", "2021-10-31 02:30:00", "2021-10-31T00:30:00+00:00"),  # twice: the first
        ("Europe/Berlin", "2021-03-28 02:30:00", "2021-03-28T01:00:00+00:00"),  # never: the end of the gap
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00+00:00"),
        ("Africa/Cairo", "2014-05-16 00:00", "2014-05-15T22:00:00+00:00"),
        ("Asia/Beirut", "2022-03-27", "2022-03-26T22:00:00+00:00"),
    ],
)
def test_times_that_come_twice_or_never_are_taken_and_counted(zone: str, local: str, moment: str) -> None:
    wanted = int(datetime.fromisoformat(moment).timestamp() * 1_000)
    assert good([local, None, "2021-01-01"][:1], zone=zone) == [wanted]
    assert moment_ms(datetime.fromisoformat(local), zone) == wanted
    table = pa.table({"ts": [local, "2021-06-01"], "user": ["u", "u"], "clicked": [0, 1]})
    schema = small_schema(time={"column": "ts", "zone": zone})
    notes = normalise(Chunk("log.csv", pa.array([1, 2]), table), schema).notes
    assert dict(notes) == ({REPEATED: 1} if "10-31" in local else {SKIPPED: 1})


FORMS = [
    "%d/%m/%Y %H:%M:%S",
    "%m-%d-%Y %H.%M.%S",
    "%Y%m%d%H%M%S",
    "%d %b %Y, %H:%M:%S",
    "%d.%m.%y %I:%M:%S %p",
]


@pytest.mark.parametrize("form", FORMS)
@given(seconds=st.lists(st.integers(631_152_000, 2_114_380_800), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_a_format_reads_what_it_writes_and_nothing_else(form: str, seconds: list[int]) -> None:
    texts = [datetime.fromtimestamp(s, UTC).strftime(form) for s in seconds]
    result = read([*texts, "2021-01-05T10:00:00", "soon", texts[0] + "x", None], format=form)
    assert result.ms_N[: len(seconds)].tolist() == [s * 1_000 for s in seconds]
    assert result.bad_N.tolist() == [False] * len(seconds) + [True] * 4


def test_a_format_reads_single_digits_numbers_and_offsets() -> None:
    noon = int(datetime(2021, 1, 5, 12, tzinfo=UTC).timestamp() * 1_000)
    assert good(["5/1/2021 12:00", "05/01/2021 12:00"], format="%d/%m/%Y %H:%M") == [noon] * 2
    assert good([2021010512], pa.int32(), format="%Y%m%d%H") == [noon]
    assert good(["05/Jan/2021:13:00:00 +0100"], format="%d/%b/%Y:%H:%M:%S %z") == [noon]


@pytest.mark.parametrize("quarantine", ["error", "quarantine"])
@given(
    day=st.integers(1, 12),
    month=st.integers(1, 12),
    mark=st.sampled_from("/.-"),
    clock=st.sampled_from(["", " 10:00"]),
)
@settings(deadline=None, max_examples=20)
def test_a_date_with_two_readings_is_refused_with_both(
    quarantine: str, day: int, month: int, mark: str, clock: str
) -> None:
    text = f"{day:02}{mark}{month:02}{mark}2021{clock}"
    chunk = Chunk("log.csv", pa.array([1]), pa.table({"ts": [text], "user": ["u"], "clicked": [0]}))
    with pytest.raises(DataError, match=r"log\.csv, column ts: .* two ways") as refused:
        normalise(chunk, small_schema(time={"column": "ts"}, malformed=quarantine))
    for form in (f"%d{mark}%m{mark}%Y", f"%m{mark}%d{mark}%Y"):
        assert form in str(refused.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["31/01/2021"], r"'31/01/2021' is not ISO 8601 \(it may be '%d/%m/%Y'\); set time.format"),
        (["1483228800"], "column ts holds numbers: set time.unit to s, ms, us, ns or mmdd"),
        ([1483228800], "column ts holds numbers: set time.unit"),
        ([True], "column ts holds bool, which is not a time"),
    ],
)
def test_a_column_that_cannot_be_times_is_named(values: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=f"log.csv.*{says}"):
        read(values)


def test_a_date_with_two_readings_among_others_is_refused_with_both() -> None:
    table = pa.table({"ts": ["2021-01-05", "05/01/2021"], "user": ["u", "u"], "clicked": [0, 1]})
    with pytest.raises(
        DataError, match=r"log\.csv, row 2: ts is missing .*5 January \('%d/%m/%Y'\) or 1 May"
    ):
        normalise(Chunk("log.csv", pa.array([1, 2]), table), small_schema(time={"column": "ts"}))


def test_a_bad_time_spoils_its_own_row_only() -> None:
    bad = ["05/01/2021", "yesterday", "2021-02-30", "1483228800", "20210105101112131", "", "2021-13-01"]
    result = read(["2021-01-05", *bad, "2021-01-05T00:00:00+00:00", None])
    assert result.bad_N.tolist() == [False, *[True] * len(bad), False, True]
    assert read(["7", "1e3", "x", "nan", "1_0", "1e999999999", None], unit="s").bad_N.tolist() == [
        False, False, True, True, True, True, True,
    ]  # fmt: skip


def test_no_digit_is_rounded_into_the_next_block() -> None:
    assert good(["1483228799." + "9" * 40, "-0.0001"], unit="s") == [1483228799999, -1]


def test_numbers_beyond_the_calendar_are_bad() -> None:
    for unit, per_second in PER_SECOND.items():
        last = 253_402_000_000 * per_second
        first = read([-(2**63), 0], unit=unit).ms_N[0]
        assert first == 0 or unit == "ns"
        for values in ([last, 2 * last], [str(last), str(2 * last)], [float(last), 2.0 * last]):
            if not isinstance(values[0], int) or last < 2**62:
                assert read(values, unit=unit).bad_N.tolist() == [False, True]


def test_dates_are_midnight_in_the_zone() -> None:
    midnight = int(datetime(2021, 1, 5, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp() * 1_000)
    for kind in (pa.date32(), pa.date64()):
        assert good([datetime(2021, 1, 5).date()], kind, zone="Asia/Tokyo", unit="ms") == [midnight]


@pytest.mark.parametrize(
    ("time", "says"),
    [
        ({"format": "%d/%m"}, "leaves out the year"),
        ({"format": "%H:%M %Q"}, "format"),
        ({"format": "%Y-%m-%d", "unit": "s"}, "format belongs to unit timestamp"),
        ({"zone": "Mars/Olympus"}, "no time zone Mars/Olympus"),
    ],
)
def test_a_time_that_is_declared_wrongly_is_refused_when_the_schema_is_read(time: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small_schema(time={"column": "ts", **time})


def test_files_of_one_day_each_are_all_read_the_same_way(tmp_path: Path) -> None:
    """The fifth of January and the thirteenth: one of them has two readings."""
    blocks = {"history": [["2021-01-01", "2021-01-10"]], "subsequent": ["2021-01-10", "2021-01-14"]}
    blocks |= {"validation": ["2021-01-14", "2021-01-15"], "test": ["2021-01-15", "2021-01-16"]}
    files = {
        f"{day}.csv": {"ts": [f"{day:02}/01/2021 10:00"] * 2, "user": ["u", "v"], "clicked": [0, 1]}
        for day in (5, 13, 14, 15)
    }
    time = {"column": "ts", "format": "%d/%m/%Y %H:%M"}
    log = prepared(tmp_path / "a", small_schema(time=time, blocks=blocks), files)
    assert [block.rows for block in log.blocks.values()] == [2, 2, 2, 2]
    with pytest.raises(DataError, match=r"csv, column ts"):
        prepared(tmp_path / "b", small_schema(time={"column": "ts"}, blocks=blocks), files)

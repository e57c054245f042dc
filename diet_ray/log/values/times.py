"""Times of any type, unit and zone as ms since 1970 UTC; never guessed.

Shape suffixes: N rows.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.errors import DataError
from diet_ray.log.declaration import TimeConfig
from diet_ray.log.values.clock import EPOCH, MILLISECOND, Moments, from_local
from diet_ray.log.values.columns import by_distinct, is_text
from diet_ray.log.values.dates import NUMBERS, check_readings, iso_moment, simple_format
from diet_ray.log.values.ids import ids_of
from diet_ray.log.values.numbers import MAX_DIGITS, decimal_of, is_number, mask

END = (datetime(9999, 12, 31) - EPOCH) // MILLISECOND  # of the calendar
UNROUNDED = Context(prec=2 * MAX_DIGITS)  # enough that nothing is rounded
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class Times(NamedTuple):
    ms_N: NDArray[np.int64]  # 0 where there is none
    bad_N: NDArray[np.bool_]  # missing or not a time
    repeated_N: NDArray[np.bool_]  # local times in an hour that came twice, taken as the first
    skipped_N: NDArray[np.bool_]  # local times that the clock skipped, moved to the end of the gap


class Clocked(NamedTuple):
    """Times as read, some on the local clock, some as moments."""

    ms: pa.Array  # int64, null where there is none
    local: pa.Array | bool  # which of them stand on the local clock


def times_of(array: pa.Array, time: TimeConfig, path: str) -> Times:
    """Times of a plain column in whole ms; what is finer is cut off, so that none moves into the next block.

    Raises DataError naming file and column where no value of it can be a time as the schema says.
    """
    read = _clocked(array, time, path)
    read_N = read.ms.fill_null(0).to_numpy()
    bad_N = mask(pc.is_null(read.ms)) | (read_N <= -END) | (read_N >= END)
    ms_N = np.where(bad_N, 0, read_N)
    local_N = np.full(len(ms_N), read.local) if isinstance(read.local, bool) else mask(read.local)
    moments = from_local(ms_N, time.zone) if local_N.any() else Moments(ms_N, local_N, local_N)
    good_N = local_N & ~bad_N
    return Times(
        np.where(good_N, moments.ms_N, ms_N), bad_N, moments.repeated_N & good_N, moments.skipped_N & good_N
    )


def _clocked(array: pa.Array, time: TimeConfig, path: str) -> Clocked:
    kind = array.type
    if pa.types.is_timestamp(kind):
        ticks = _floor_divided(array.cast(pa.int64()), PER_SECOND[kind.unit])
        return Clocked(ticks, kind.tz is None)
    if pa.types.is_date(kind):
        return Clocked(array.cast(pa.timestamp("ms")).cast(pa.int64()), True)
    if pa.types.is_null(kind):
        return Clocked(array.cast(pa.int64()), False)
    if time.unit == "mmdd" and (is_number(kind) or is_text(kind)):
        return Clocked(
            by_distinct(_digits(array), lambda text: _month_and_day(text, time.year), pa.int64()), True
        )
    if time.format is not None and (is_number(kind) or is_text(kind)):
        return _formatted(_digits(array), time.format)
    if is_text(kind):
        return (
            _iso(array, time, path)
            if time.unit == "timestamp"
            else Clocked(_of_text(array, time.unit), False)
        )
    if not is_number(kind):
        raise DataError(f"{path}, column {time.column} holds {kind}, which is not a time")
    if time.unit == "timestamp":
        raise DataError(NUMBERS.format(path=path, column=time.column))
    return Clocked(_of_numbers(array, time.unit), False)


def _digits(array: pa.Array) -> pa.Array:
    texts = array if is_text(array.type) else ids_of(array, "").values
    return pc.utf8_trim_whitespace(texts)


def _floor_divided(ticks: pa.Array, per_second: int) -> pa.Array:
    """Whole ms of int64 ticks; null where they do not fit."""
    tick_N = ticks.fill_null(0).to_numpy()
    if per_second >= 1_000:
        ms_N, fits_N = tick_N // (per_second // 1_000), np.ones(len(tick_N), bool)
    else:
        fits_N = (tick_N > -END) & (tick_N < END)
        ms_N = np.where(fits_N, tick_N, 0) * 1_000
    return pa.array(ms_N, mask=mask(pc.is_null(ticks)) | ~fits_N)


def _of_numbers(array: pa.Array, unit: str) -> pa.Array:
    kind = array.type
    if pa.types.is_floating(kind):
        return _of_floats(array.cast(pa.float64()), unit)
    if pa.types.is_decimal(kind):
        return by_distinct(array, lambda number: _cut(number, unit), pa.int64())
    if pa.types.is_uint64(kind):
        array = pc.if_else(pc.less(array, pa.scalar(2**63, kind)), array, pa.scalar(None, kind))
    return _floor_divided(array.cast(pa.int64()), PER_SECOND[unit])


def _of_floats(array: pa.Array, unit: str) -> pa.Array:
    value_N = array.fill_null(np.nan).to_numpy(zero_copy_only=False)
    fits_N = np.abs(value_N) < END * (PER_SECOND[unit] / 1_000)
    value_N = np.where(fits_N, value_N, 0)
    if unit == "s":
        # 0.123 is not quite a float: take the last ms whose float is not above the value.
        ms_N = np.round(value_N * 1_000)
        ms_N = np.where(ms_N / 1_000 <= value_N, ms_N, ms_N - 1)
    else:
        ms_N = np.floor_divide(np.floor(value_N), PER_SECOND[unit] // 1_000)
    return pa.array(ms_N.astype(np.int64), mask=~fits_N)


def _of_text(array: pa.Array, unit: str) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(array)
    try:
        return _floor_divided(trimmed.cast(pa.int64()), PER_SECOND[unit])
    except pa.ArrowInvalid:
        return by_distinct(trimmed, lambda text: _cut(decimal_of(text), unit), pa.int64())


def _cut(number: Decimal | None, unit: str) -> int | None:
    if number is None or number.adjusted() > 20:
        return None
    ms = int(UNROUNDED.multiply(number, Decimal(1_000) / PER_SECOND[unit]).to_integral_value("ROUND_FLOOR"))
    return ms if abs(ms) < END else None


def _month_and_day(text: str, year: int | None) -> int | None:
    text = text.zfill(4)
    if len(text) != 4 or not text.isdigit() or year is None:
        return None
    try:
        return (date(year, int(text[:2]), int(text[2:])) - EPOCH.date()) // MILLISECOND
    except ValueError:
        return None


def _iso(array: pa.Array, time: TimeConfig, path: str) -> Clocked:
    for zone in (None, "UTC"):  # without an offset, or with one, in all rows
        try:
            ticks = array.cast(pa.timestamp("us", zone)).cast(pa.int64())
            return Clocked(_floor_divided(ticks, PER_SECOND["us"]), zone is None)
        except pa.ArrowInvalid:
            pass
    read = _each(array, iso_moment)
    if read.ms.null_count == len(array):
        check_readings(array, time.column, path)
    return read


def _formatted(array: pa.Array, form: str) -> Clocked:
    if (simple := simple_format(form)) is not None:
        pattern, iso = simple
        if pc.all(pc.match_substring_regex(array, pattern)).as_py():
            try:
                ticks = (
                    pc.replace_substring_regex(array, pattern, iso).cast(pa.timestamp("us")).cast(pa.int64())
                )
                return Clocked(_floor_divided(ticks, PER_SECOND["us"]), True)
            except pa.ArrowInvalid:
                pass
    return _each(array, lambda text: _strptime(text, form))


def _strptime(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None


def _each(array: pa.Array, read: Callable[[str], datetime | None]) -> Clocked:
    """Read each distinct text by itself."""
    coded = array.dictionary_encode()
    moments = [None if text is None else read(text) for text in coded.dictionary.to_pylist()]
    ms = [None if moment is None else _ms(moment) for moment in moments]
    local = [moment is not None and moment.tzinfo is None for moment in moments]
    return Clocked(
        pa.array(ms, pa.int64()).take(coded.indices), pa.array(local, pa.bool_()).take(coded.indices)
    )


def _ms(moment: datetime) -> int:
    offset = moment.utcoffset() or timedelta()
    return (moment.replace(tzinfo=None) - EPOCH - offset) // MILLISECOND

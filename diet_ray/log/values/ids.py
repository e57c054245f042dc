"""The one form of an id: text as written, whole numbers by value, never through a float."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.log.values.columns import by_distinct, decoded, is_bytes, is_text
from diet_ray.log.values.numbers import mask

EXACT = {32: 24, 64: 53}  # bits of a float -> bits of the whole numbers that it holds exactly


class Ids(NamedTuple):
    values: pa.Array  # string, null where missing or bad
    bad_N: NDArray[np.bool_]
    reason: str  # what is wrong with the bad ones


def ids_of(array: pa.Array, column: str) -> Ids:
    """Ids of a plain column, whatever type its file has: 7, 7.0, decimal 7.00 and the text 7 are one id.

    Raises pa.ArrowException where the type cannot hold ids (lists, structs).
    """
    kind, reason = array.type, ""
    good_N = np.zeros(len(array), bool)
    if is_bytes(kind):
        array, bad = decoded(array)
        return Ids(array, mask(bad), f"{column} is not UTF-8 text")
    if pa.types.is_floating(kind):
        exact = EXACT[kind.bit_width]
        too_large = pc.and_(pc.greater(pc.abs(array), pa.scalar(2.0**exact, kind)), pc.is_finite(array))
        reason = f"{column} is a float beyond 2**{exact}, which does not hold whole numbers exactly"
        texts = float_text(pc.if_else(too_large, pa.scalar(None, kind), array))
        return Ids(texts, mask(too_large), reason)
    if pa.types.is_decimal(kind):
        array = by_distinct(array, number_text, pa.string())
    elif pa.types.is_timestamp(kind):
        fine = pc.replace_substring_regex(array.cast(pa.string()), r"(\.\d*[1-9])0+", r"\1")
        array = pc.replace_substring_regex(fine, r"\.0+(\D|$)", r"\1")
    elif not is_text(kind):
        array = array.cast(pa.string())
    return Ids(array, good_N, reason)


def coded(array: pa.Array, of: Callable[[pa.Array], Ids]) -> Ids:
    """`of` the column, called with its distinct values; the ids as a dictionary, which may repeat one.

    Raises pa.ArrowException where the type cannot hold ids.
    """
    by_value = array.dictionary_encode()
    ids = of(by_value.dictionary)
    # What is no id is an empty text here, for a dictionary holds no null: bad_N leaves its rows out.
    values = pa.DictionaryArray.from_arrays(by_value.indices, ids.values.fill_null(""))
    if not ids.bad_N.any():
        return Ids(values, np.zeros(len(array), bool), ids.reason)
    bad_D = np.append(ids.bad_N, False)
    return Ids(values, bad_D[by_value.indices.fill_null(len(ids.bad_N)).to_numpy()], ids.reason)


def without_missing(array: pa.Array, missing: tuple[str, ...]) -> pa.Array:
    """The plain column with null for what means no value: NaN, the empty text, and the texts of `missing`."""
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if is_text(array.type):
        absent = pc.is_in(array, value_set=pa.array(["", *missing], pa.string()))
    elif missing:
        try:
            absent = pc.is_in(ids_of(array, "").values, value_set=pa.array(missing, pa.string()))
        except pa.ArrowException:  # a type without a text
            return array
    else:
        return array
    return pc.if_else(absent, pa.scalar(None, array.type), array)


def float_text(array: pa.Array) -> pa.Array:
    """Floats as text: whole numbers as such, all others by their shortest form."""
    value_N = array.fill_null(0).to_numpy(zero_copy_only=False)
    if np.all(np.abs(value_N) <= 2**53) and np.array_equal(np.trunc(value_N), value_N):
        whole = pa.array(value_N.astype(np.int64)).cast(pa.string())
        return pc.if_else(pc.is_valid(array), whole, pa.scalar(None, pa.string()))
    coded = array.dictionary_encode()
    distinct = coded.dictionary.to_numpy(zero_copy_only=False)
    # NumPy writes a float32 by its own shortest form, not by that of the float64 next to it.
    texts = [number_text(Decimal(text)) for text in distinct.astype(str).tolist()]
    return pa.array(texts, pa.string()).take(coded.indices)


def number_text(number: Decimal) -> str:
    """The one form of a number: digits where it is whole, else as Python writes a float of that value."""
    if not number.is_finite():
        return repr(float(number))
    if abs(number.adjusted()) > 400:
        return str(number)
    whole = number.to_integral_value()
    if whole == number:
        return f"{whole:f}" if whole else "0"
    nearest = float(number)
    return repr(nearest) if Decimal(repr(nearest)) == number else f"{number:f}".rstrip("0")


def json_text(value: Any) -> str | None:
    """A value of JSON (read with parse_float=Decimal) as text; a list or an object raises ValueError."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return None if value.is_nan() else number_text(value)
    raise ValueError("not a single value")

"""Labels and filters: a column compared by value, a bad cell spoiling its own row only.

Shape suffixes: N rows.
"""

from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.log.declaration import Condition, TaskConfig
from diet_ray.log.values.columns import by_distinct, is_text
from diet_ray.log.values.ids import float_text, ids_of
from diet_ray.log.values.numbers import decimal_of, is_number, mask, numbers_of

YES = frozenset({"true", "t", "yes", "y", "on"})
NO = frozenset({"false", "f", "no", "n", "off"})


class Verdict(NamedTuple):
    """Whether a column passes a test, row by row."""

    passes_N: NDArray[np.bool_]
    missing_N: NDArray[np.bool_]
    bad_N: NDArray[np.bool_]  # a value that cannot be compared
    fault: str  # what a bad one is not: "a number"


def verdict(array: pa.Array, test: Condition) -> Verdict:
    """Compare a plain column: numbers by value, booleans with words for yes and no, text as written."""
    missing_N = mask(pc.is_null(array))
    if test.equals is None:
        passes_N, bad_N, fault = *_threshold(array, test), "a number"
    elif isinstance(test.equals, bool):
        passes_N, bad_N = _truth(array, test.equals)
        fault = "true or false as equals is (YAML reads a bare yes or no so; quote it to compare text)"
    elif isinstance(test.equals, str):
        passes_N, bad_N = _same_text(array, test.equals)
        fault = "text"
    else:
        passes_N, bad_N = _same_number(array, Decimal(str(test.equals)))
        fault = "a number as equals is (quote it to compare text)"
    return Verdict(passes_N & ~missing_N & ~bad_N, missing_N, bad_N & ~missing_N, fault)


def label(array: pa.Array, task: TaskConfig) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str]:
    """Labels of a plain column, a mask of rows that have none, and what is wrong with those."""
    if task.condition is None:
        truth = by_distinct(_comparable(array), _zero_or_one, pa.bool_())
        bad_N = mask(pc.is_null(truth))
        return mask(truth).astype(np.uint8), bad_N, f"{task.source} is not 0 or 1"
    result = verdict(array, task.condition)
    reason = f"{task.source} is missing"
    if not isinstance(task.equals, str):
        reason += f" or not {result.fault}"
    return result.passes_N.astype(np.uint8), result.missing_N | result.bad_N, reason


def _threshold(array: pa.Array, test: Condition) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    is_low = test.at_least is not None
    bound = test.at_least if is_low else test.at_most
    assert bound is not None
    value_N, bad_N = numbers_of(array)
    passes_N = value_N > float(bound) if is_low else value_N < float(bound)
    # Rounding keeps order, so that only values with the float of the bound have to be compared exactly.
    tie_N = (value_N == float(bound)) & ~bad_N
    exact = Decimal(str(bound))
    ties = by_distinct(
        _comparable(array.filter(pa.array(tie_N))), lambda text: _is_beyond(text, exact, is_low), pa.bool_()
    )
    passes_N[tie_N] = mask(ties)
    return passes_N, bad_N


def _is_beyond(text: str, bound: Decimal, is_low: bool) -> bool | None:
    number = decimal_of(text)
    if number is None:
        return None
    return number >= bound if is_low else number <= bound


def _same_number(array: pa.Array, wanted: Decimal) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    same = by_distinct(_comparable(array), lambda text: _equal(text, wanted), pa.bool_())
    return mask(same), mask(pc.is_null(same))


def _equal(text: str, wanted: Decimal) -> bool | None:
    number = decimal_of(text)
    return None if number is None else number == wanted


def _truth(array: pa.Array, wanted: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    truth = by_distinct(_comparable(array), _true_or_false, pa.bool_())
    return mask(pc.equal(truth, wanted)), mask(pc.is_null(truth))


def _true_or_false(text: str) -> bool | None:
    word = text.strip().lower()
    return word in YES if word in YES | NO else _zero_or_one(word)


def _zero_or_one(text: str) -> bool | None:
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    number = decimal_of(word)
    return bool(number) if number is not None and number in (0, 1) else None


def _same_text(array: pa.Array, wanted: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    number = decimal_of(wanted)
    if is_number(array.type) and number is not None:
        return _same_number(array, number)
    if pa.types.is_boolean(array.type) and (truth := _true_or_false(wanted)) is not None:
        return _truth(array, truth)
    if is_number(array.type) or pa.types.is_boolean(array.type):
        raise pa.ArrowInvalid(f"{wanted!r} is neither a number nor true or false")
    texts, bad_N, _ = ids_of(array, "")
    return mask(pc.equal(texts, wanted)), bad_N


def _comparable(array: pa.Array) -> pa.Array:
    """The values as text, numbers exactly."""
    if pa.types.is_floating(array.type):
        return float_text(array)
    if pa.types.is_boolean(array.type):
        return pc.if_else(array, "1", "0")
    return array if is_text(array.type) else array.cast(pa.string())

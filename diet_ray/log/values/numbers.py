"""Numbers by value, whether a file stores them as numbers or as text.

Shape suffixes: N rows.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diet_ray.log.values.columns import by_distinct, is_text

WRITTEN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MAX_DIGITS = 4000  # of a number that is written out


class Numbers(NamedTuple):
    value_N: NDArray[np.float64]  # 0 where there is none
    bad_N: NDArray[np.bool_]  # a value that is no number


def decimal_of(text: str) -> Decimal | None:
    """The number that a text is, exactly; None where it is none."""
    text = text.strip()
    if len(text) > MAX_DIGITS or not WRITTEN.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if abs(number.adjusted()) < MAX_DIGITS else None


def numbers_of(array: pa.Array) -> Numbers:
    """Each value of a plain column as a float64; a missing one is 0 and not bad."""
    if is_text(array.type):
        array, missing = _read(array), array
    elif pa.types.is_boolean(array.type):
        array, missing = array.cast(pa.uint8()), array
    elif is_number(array.type) or pa.types.is_null(array.type):
        missing = array
    else:
        return Numbers(np.zeros(len(array)), mask(pc.is_valid(array)))
    value_N = array.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    bad_N = np.isnan(value_N) & mask(pc.is_valid(missing))
    return Numbers(np.where(np.isnan(value_N), 0, value_N), bad_N)


def _read(texts: pa.Array) -> pa.Array:
    try:
        value = texts.cast(pa.float64())
        if not pc.any(pc.invert(pc.is_finite(value))).as_py():
            return value
    except pa.ArrowInvalid:
        pass
    return by_distinct(texts, _float, pa.float64())


def _float(text: str) -> float | None:
    number = decimal_of(text)
    return None if number is None else float(number)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def mask(array: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """A boolean Arrow column as NumPy has it; null is false."""
    return np.asarray(array.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)

"""Columns in the few Arrow types that values are read from: text, numbers, booleans, times, bytes, null."""

import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The same values in one array: dictionaries decoded, text as string, bytes as string where UTF-8."""
    array = column
    if isinstance(column, pa.ChunkedArray):
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # more text than one array can hold
        array = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in array.chunks])
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _unwrapped(array)
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_float16(kind):  # few kernels take it
        return array.cast(pa.float32())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_float16(kind):  # for which Arrow has few functions
        return array.cast(pa.float32())
    return _as_text(array) if is_bytes(kind) else array


def _unwrapped(array: pa.ExtensionArray) -> pa.Array:
    if array.type.extension_name == "arrow.uuid":
        return by_distinct(array.storage, lambda value: str(uuid.UUID(bytes=value)), pa.string())
    return plain(array.storage)


def _as_text(array: pa.Array) -> pa.Array:
    """Text where all of it is UTF-8; else bytes, so that one bad cell does not cost the others."""
    try:
        return array.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return array.cast(pa.binary())


def checked(array: pa.Array) -> pa.Array:
    """A plain column; as bytes where it claims to be text and is not UTF-8, which readers do not check."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        if not is_text(array.type):
            raise
        return array.view(pa.binary())
    return array


def is_bytes(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        )
    )


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind)


def decoded(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Text of bytes, null where they are not UTF-8; and a mask of those."""
    texts = by_distinct(array, _utf8, pa.string())
    return texts, pc.and_(pc.is_null(texts), pc.is_valid(array))


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def by_distinct(array: pa.Array, function: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
    """`function` of each value, called once per distinct one; null stays null."""
    coded = array.dictionary_encode()
    answers = [None if value is None else function(value) for value in coded.dictionary.to_pylist()]
    return pa.array(answers, kind).take(coded.indices)

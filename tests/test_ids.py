"""An id has one form, whatever type, file or format it comes from."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.log.values.columns import plain
from diet_ray.log.values.ids import ids_of, json_text, without_missing
from tests.small_log import BLOCKS, encoding, filled, prepared, small_schema

INT_TYPES = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
NUMBER_TYPES = [
    *INT_TYPES,
    pa.float32(),
    pa.float64(),
    pa.decimal128(38, 0),
    pa.decimal128(38, 3),
    pa.decimal256(60, 2),
    pa.dictionary(pa.int32(), pa.int64()),
]
TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.dictionary(pa.int32(), pa.string()),
]
FORMATS = {
    "csv": [],
    "csv.gz": [],
    "tsv": [],
    "jsonl": [pa.int64(), pa.string()],
    "parquet": [*NUMBER_TYPES, *TEXT_TYPES],
}
FORMATS |= {
    "arrow": [*FORMATS["parquet"]],
    "orc": [pa.int64(), pa.float64(), pa.decimal128(38, 3), pa.string()],
}

whole = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(2**53 - 3, 2**53 + 3),
    st.sampled_from([2**24, 2**24 + 1, 2**63 - 1, -(2**63), 2**64 - 1]),
)
text = st.one_of(
    st.sampled_from(
        ["NA", "null", "nan", "None", "007", "7", "7.0", "1e3", "-", "true", "True", "N/A", "#N/A"]
    ),
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=6
    ),
)


def as_type(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """The values in a type, None where it does not hold them exactly."""
    if kind in NUMBER_TYPES and any(isinstance(value, str) for value in values):
        return None
    try:
        if pa.types.is_dictionary(kind):
            return pa.array(values, kind.value_type).dictionary_encode()
        if pa.types.is_decimal(kind):
            return pa.array([None if v is None else Decimal(v) for v in values], kind)
        if pa.types.is_floating(kind):
            limit = 2**24 if kind == pa.float32() else 2**53
            if any(v is not None and abs(v) > limit for v in values):
                return None
            return pa.array([None if v is None else float(v) for v in values], kind)
        if kind in TEXT_TYPES and not pa.types.is_dictionary(kind):
            texts = [None if v is None else str(v) for v in values]
            binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
            return pa.array([t and t.encode() for t in texts] if binary else texts, kind)
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any], list[int]]:
    """Ids, the same ids in files of any format and type, and the rows of each file, in the files' order."""
    values = draw(
        st.lists(
            st.one_of(st.none(), whole) if draw(st.booleans()) else st.one_of(st.none(), whole, text),
            min_size=10,
            max_size=14,
        )
    )
    order = draw(st.permutations(range(len(values))))
    cuts = sorted(draw(st.lists(st.integers(0, len(values)), max_size=2)))
    parts = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True) if a < b]
    written = {}
    for number, rows in enumerate(parts):
        ending = draw(st.sampled_from(sorted(FORMATS)))
        some = [values[row] for row in rows]
        kinds = [kind for kind in FORMATS[ending] if as_type(some, kind) is not None]
        kinds += (
            [pa.null()] if all(value is None for value in some) and ending in ("parquet", "arrow") else []
        )
        column = (
            as_type(some, draw(st.sampled_from(kinds)))
            if kinds
            else pa.array([None if v is None else str(v) for v in some], pa.string())
        )
        written[f"{draw(st.integers(0, 9))}-{number}.{ending}"] = rows, column
    return values, written


@given(files())
@settings(max_examples=25, deadline=None)
def test_any_mix_of_types_formats_and_orders_is_encoded_as_the_same_texts_in_one_file(log: Any) -> None:
    values, written = log
    whole_log = filled({"user": [None if value is None else str(value) for value in values]})
    several = {
        name: {**{c: [whole_log[c][row] for row in rows] for c in ("ts", "clicked")}, "user": column}
        for name, (rows, column) in written.items()
    }
    wanted = encoding(small_schema(), {"all.csv": whole_log})
    assert encoding(small_schema(), several) == wanted
    known = {str(value) for value in values[2::5] + values[0::5] + values[1::5] if value is not None}
    assert wanted["test"][0] == (len(known) + 1,)


@given(st.lists(st.one_of(st.none(), whole), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_whole_number_is_its_digits_in_every_type_that_holds_it(values: list[int | None]) -> None:
    for kind in NUMBER_TYPES:
        if (column := as_type(values, kind)) is not None:
            assert ids_of(plain(column), "user").values.to_pylist() == [
                None if v is None else str(v) for v in values
            ]


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_a_fraction_is_written_in_its_shortest_form_in_every_type(value: float) -> None:
    ids = ids_of(pa.array([value]), "user")
    if abs(value) > 2**53:
        assert ids.bad_N.tolist() == [True] and "beyond 2**53" in ids.reason
        return
    wanted = str(int(value)) if value == int(value) else repr(value)
    assert ids.values.to_pylist() == [wanted] == [json_text(Decimal(repr(value)))]


@pytest.mark.parametrize(("kind", "bits"), [(pa.float32(), 24), (pa.float64(), 53)])
def test_a_float_that_does_not_hold_whole_numbers_exactly_is_no_id(kind: pa.DataType, bits: int) -> None:
    ids = ids_of(pa.array([2.0**bits, -(2.0**bits), 2.0**bits * 1.5]).cast(kind), "user")
    assert ids.values.to_pylist() == [str(2**bits), str(-(2**bits)), None]
    assert ids.bad_N.tolist() == [False, False, True] and f"2**{bits}" in ids.reason


def test_numbers_of_json_are_as_written() -> None:
    numbers = [
        True,
        7,
        Decimal("7.0"),
        Decimal("1e3"),
        10**20,
        Decimal("12345678901234567890.0"),
        Decimal("0.10"),
    ]
    assert [json_text(n) for n in numbers] == [
        "true",
        "7",
        "7",
        "1000",
        str(10**20),
        "12345678901234567890",
        "0.1",
    ]
    assert json_text(Decimal("1e999999999")) == "1E+999999999"
    long = "1234567890123456789012345678.00000000010"
    assert json_text(Decimal(long)) == long[:-1]
    with pytest.raises(ValueError, match="single value"):
        json_text([7])


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([b"a", b"\xff", None]), ["a", None, None]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([None, None]), [None, None]),
        (pa.array([0, 1500], pa.timestamp("ms")), ["1970-01-01 00:00:00", "1970-01-01 00:00:01.5"]),
        (pa.array([1_500_000], pa.timestamp("us")), ["1970-01-01 00:00:01.5"]),
        (pa.array([0], pa.date32()), ["1970-01-01"]),
        (pa.array([1.0, 0.5, None], pa.float16()), ["1", "0.5", None]),
        (pa.chunked_array([["a"], ["b"]]), ["a", "b"]),
        (pa.array([7, 7, 8]).dictionary_encode(), ["7", "7", "8"]),
        (pa.compute.run_end_encode(pa.array([7, 7, 8])), ["7", "7", "8"]),
    ],
)
def test_other_types_have_a_text_too(column: Any, texts: list[str | None]) -> None:
    assert ids_of(plain(column), "user").values.to_pylist() == texts


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.float64(), pa.decimal128(9, 0)])
def test_missing_is_what_is_empty_and_what_the_schema_lists(kind: pa.DataType) -> None:
    column = as_type([7, None, -1], kind)
    assert without_missing(plain(column), ()).null_count == 1
    assert without_missing(plain(column), ("-1", "NA")).is_null().to_pylist() == [False, True, True]


def test_only_listed_words_are_missing(tmp_path: Path) -> None:
    words = ["NA", "null", "nan", "None", "\\N", "", "N/A", "DE", "SE", "ZA"]
    columns = filled({"user": [word for word in words for _ in BLOCKS]})
    for n, (missing, tables) in enumerate([((), 10), (("\\N",), 9), (("\\N", "NA"), 8)]):
        log = prepared(tmp_path / str(n), small_schema(missing=list(missing)), {"log.csv": columns})
        assert log.blocks["test"].table_rows == (tables,)

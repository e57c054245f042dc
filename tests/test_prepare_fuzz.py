"""Whatever bytes a file holds, `prepare` ends in a log or one DietError: nothing else escapes, nothing hangs.

The bytes are valid files with a few changes each: bits turned, pieces cut, doubled or moved, awkward text put
in, columns of other types. All of it follows from the seed in the test's name.
"""

import bz2
import gzip
import io
import json
import lzma
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from diet_ray.errors import DietError
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.schema import LogSchema
from tests.shop_log import shop_rows, shop_schema

SEEDS = 10
INPUTS = 334  # per seed and format: 10,020 in all
LIMIT_S = 60  # for one input; a busy machine takes a tenth of a second

WORDS = "null NaN NA None inf -inf 1e309 1e-400 -0 0x1F 1_000 007 7.0 true yes 2 -1 9223372036854775808 PAR1"
TIMES = "2017-02-30 2017-03-26T02:30:00 0000-00-00 05/06/2017 99999-01-01 12:00 2017-01T"
MARKS = """ " "" ' \\ , ; | { } [ ] : \\u0000 \\ud800 ü \ufeff \U0001f986 """
SPACES = ["\0", "\r", "\n", "\r\n", "\t", "\x1f", "\u2028"]
LONG = ["9" * 40, "0.1" * 9, "[" * 2000, '{"a":' * 2000, "x" * 5000]
AWKWARD = [word.encode() for word in f"{WORDS} {TIMES} {MARKS}".split() + SPACES + LONG]
AWKWARD += [b"\xff", b"\xfe", b"\xed\xa0\x80", "ü".encode("latin-1")]
SCHEMAS = [
    shop_schema(malformed="error"),
    shop_schema(malformed="quarantine"),
    shop_schema(
        malformed="quarantine",
        missing=["NA", ""],
        fields=[
            "user_id",
            {"name": "item_id", "at_most": 30},
            {"name": "day", "from": "ts", "as": "weekday"},
        ],
        tasks=[{"name": "clicked", "equals": True}, {"name": "liked", "from": "rating", "at_least": 4}],
        where=[{"column": "bought", "at_most": 1}],
    ),
    shop_schema(
        malformed="quarantine",
        time={"column": "ts", "zone": "Europe/Berlin", "format": "%Y-%m-%d %H:%M:%S"},
        encoder={"kind": "hashed", "buckets": 50},
    ),
    shop_schema(malformed="quarantine", time={"column": "ts", "unit": "s"}),
]
TYPES: list[pa.DataType] = [
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())),
    *(pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(38, 4), pa.bool_(), pa.null()),
    *(pa.date32(), pa.timestamp("ns", "Asia/Tokyo"), pa.time64("us"), pa.duration("s")),
    *(pa.list_(pa.string()), pa.struct([("a", pa.int64())])),
]

Draw = random.Random
Content = tuple[str, bytes]  # name of the file, what it holds


@pytest.fixture(autouse=True)
def few_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes the time of a small log is the number of its files."""
    monkeypatch.setattr("diet_ray.log.preparation.slices.BASE_SLICES", 1)


def rows(draw: Draw) -> pa.Table:
    """A few rows of the shop in each block, in any order."""
    frame = shop_rows(60).iloc[:: draw.choice([1, 1, 2])]
    if draw.random() < 0.3:
        frame = frame.sample(frac=1, random_state=draw.randrange(99))
    return pa.Table.from_pandas(frame, preserve_index=False)


def as_csv(draw: Draw) -> Content:
    separator, ending = draw.choice([(",", "csv"), (",", "csv"), ("\t", "tsv"), (";", "csv"), (",", "txt")])
    options = csv.WriteOptions(delimiter=separator, quoting_style=draw.choice(["needed", "all_valid"]))
    file = io.BytesIO()
    csv.write_csv(rows(draw), file, options)
    content = file.getvalue()
    packers: list[tuple[str, Callable[[bytes], bytes]]] = [
        *[("", bytes)] * 6,
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda plain: pa.compress(plain, "zstd", asbytes=True)),
    ]
    name, pack = draw.choice(packers)
    if draw.random() < 0.8:
        return f"log.{ending}{name}", pack(changed(content, draw))
    return f"log.{ending}{name}", changed(pack(content), draw)


def as_json(draw: Draw) -> Content:
    objects = rows(draw).to_pylist()
    for each in objects:
        each["ts"] = str(each["ts"])
        if draw.random() < 0.05:
            each[draw.choice(list(each))] = draw.choice([None, [], {}, {"a": [1]}, True, 1.5, 10**25, "x"])
        if draw.random() < 0.05:
            del each[draw.choice(list(each))]
    if draw.random() < 0.3:
        return "log.json", changed(json.dumps(objects, ensure_ascii=draw.random() < 0.5).encode(), draw)
    lines = "\n".join(json.dumps(each) for each in objects).encode()
    return draw.choice(["log.jsonl", "log.ndjson", "log.json"]), changed(lines, draw)


def as_parquet(draw: Draw) -> Content:
    table = rows(draw)
    for name in table.column_names:
        if draw.random() < 0.15:
            table = retyped(table, name, draw.choice(TYPES))
    if draw.random() < 0.1:
        table = table.rename_columns([draw.choice([*table.column_names, ""]) for _ in table.column_names])
    file = io.BytesIO()
    try:
        pq.write_table(table, file, compression=draw.choice(["none", "snappy", "zstd"]), row_group_size=25)
    except pa.ArrowException:  # a type that Parquet does not have
        return as_parquet(draw)
    content = file.getvalue()
    return "log.parquet", content if draw.random() < 0.4 else changed(content, draw, awkward=0.2)


def retyped(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    """The table with a column of another type; as it was where its values cannot be of that type."""
    column = table[name].combine_chunks()
    try:
        if pa.types.is_list(kind):
            column = pa.array([[str(value)] for value in column.to_pylist()], kind)
        elif pa.types.is_struct(kind):
            column = pa.array([{"a": 1}] * len(column), kind)
        elif pa.types.is_null(kind):
            column = pa.nulls(len(column))
        else:
            column = column.cast(kind)
    except (pa.ArrowException, ValueError):
        return table
    return table.set_column(table.column_names.index(name), name, column)


def changed(content: bytes, draw: Draw, awkward: float = 0.6) -> bytes:
    """The content with a few changes, most often near each other."""
    data = bytearray(content)
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3, 8])):
        place = draw.randrange(len(data) + 1)
        length = draw.choice([1, 1, 2, 7, 40, 400])
        if draw.random() < awkward:
            data[place : place + draw.choice([0, 0, 1, 4])] = draw.choice(AWKWARD)
        elif data:
            match draw.randrange(5):
                case 0:
                    data[place % len(data)] ^= 1 << draw.randrange(8)
                case 1:
                    del data[place : place + length]
                case 2:
                    data[place:place] = data[place : place + length]
                case 3:
                    end = draw.randrange(len(data) + 1)
                    data[end:end] = data[place : place + length]
                case 4:
                    del data[place:]
    return bytes(data)


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(folder: Path, schema: LogSchema, content: Content) -> str:
    """Prepare the file in a folder of its own; "log", or the sentence that says why there is none."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "source").mkdir(parents=True)
    (folder / "source" / content[0]).write_bytes(content[1])
    try:
        with limit(LIMIT_S):
            log = prepare(schema, str(folder / "source"), str(folder / "out"))
    except DietError as refused:
        return str(refused)
    for block in log.blocks.values():
        assert sum(chunk.rows for chunk in log.chunks(block)) == block.rows > 0
    return "log"


FORMATS = {"csv": as_csv, "json": as_json, "parquet": as_parquet}


def check(folder: Path, make: Callable[[Draw], Content], seed: str, inputs: int) -> int:
    """Prepare so many inputs; return how many became a log."""
    logs = 0
    for number in range(inputs):
        draw = Draw(f"{seed}-{number}")
        content, schema = make(draw), draw.choice(SCHEMAS)
        try:
            said = outcome(folder, schema, content)
        except Exception as escaped:
            raise AssertionError(f"input {number} of {seed}: {escaped!r} of {content[0]}") from escaped
        assert "Traceback" not in said and said.count("\n") == 0, f"input {number} of {seed}: {said}"
        logs += said == "log"
    return logs


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_a_few_changed_files_become_a_log_or_a_sentence(
    tmp_path: Path, make: Callable[[Draw], Content]
) -> None:
    assert 0 < check(tmp_path, make, "short", 15) < 15


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_ten_thousand_changed_files_become_a_log_or_a_sentence(
    tmp_path: Path, make: Callable[[Draw], Content], seed: int
) -> None:
    assert 0 < check(tmp_path, make, str(seed), INPUTS) < INPUTS

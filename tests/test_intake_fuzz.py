"""Whatever bytes a file holds, it becomes rows or one sentence: no traceback, no hang."""

import gzip
import json
import random
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest

from diet_ray.errors import DietError
from diet_ray.log.formats import delimited
from diet_ray.log.normalise import normalise
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import chunks
from tests.small_log import filled, small_schema, write_table

ENDINGS = ("csv", "tsv", "csv.gz", "csv.zst", "parquet", "arrow", "orc", "jsonl", "json")
PIECES = [
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\t",
    b"\xff",
    b"\x00",
    b"\\",
    b"nan",
    b"1e999",
    b"-",
    b"{",
    b"[",
    b"9" * 20,
]
PIECES += [
    b"\xef\xbb\xbf",
    b"2021-01-05",
    b"05/01/2021",
    b"ts,clicked,user\n",
    b"1_0",
    b"\xed\xa0\x80",
    b"\\ud800",
]


def originals(folder: Path) -> dict[str, bytes]:
    columns = filled({"user": [str(n) for n in range(20)]})
    for ending in ("csv", "tsv", "parquet", "arrow", "orc", "jsonl"):
        write_table(folder / f"x.{ending}", columns)
    contents = {file.suffix[1:]: file.read_bytes() for file in folder.glob("x.*")}
    contents["json"] = json.dumps(
        [json.loads(line) for line in contents["jsonl"].splitlines()], indent=1
    ).encode()
    contents["csv.gz"] = gzip.compress(contents["csv"])
    contents["csv.zst"] = pa.compress(contents["csv"], codec="zstd", asbytes=True)
    return contents


def spoilt(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([0, 1, 1, 2, 5, 20])):
        place, kind = draw.randrange(len(changed) + 1), draw.random()
        if kind < 0.4:
            changed[place:place] = draw.choice(PIECES)
        elif kind < 0.6:
            del changed[place : place + draw.randrange(1, 8)]
        elif kind < 0.8 and place < len(changed):
            changed[place] ^= 1 << draw.randrange(8)
        elif kind < 0.9:
            del changed[place:]
        else:
            changed[place:place] = changed[:place][-50:]
    return bytes(changed)


def schemas() -> list[LogSchema]:
    times = [{"unit": "s"}, {"zone": "Europe/Berlin"}, {"unit": "ns"}, {"format": "%d/%m/%Y"}]
    tests = [{}, {"equals": "1"}, {"equals": True}, {"at_least": 0.5}]
    files = [{}, {"quote": None}, {"quote": '"'}, {"separator": "::"}]
    fields = ["user", {"name": "capped", "from": "user", "at_most": 8}]
    return [
        small_schema(
            malformed=malformed,
            time={"column": "ts", **time},
            tasks=[{"name": "clicked", **test}],
            where=[{"column": "user", "at_most": 2**60}] if test else [],
            files=file,
            fields=fields,
        )
        for malformed, time, test, file in product(["error", "quarantine"], times, tests, files)
    ]


def check(inputs: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, contents, choices = random.Random(0), originals(folder), schemas()
    for number in range(inputs):
        ending = draw.choice(ENDINGS)
        path = folder / f"spoilt.{ending}"
        path.write_bytes(spoilt(contents[ending], draw))
        monkeypatch.setattr(delimited, "BLOCK_BYTES", draw.choice([50, 1 << 20]))
        schema = draw.choice(choices)
        try:
            for chunk in chunks(str(path), schema, str(folder)):
                normalise(chunk, schema)
        except DietError as refused:
            assert "\n" not in str(refused) and path.name in str(refused), f"input {number}"


def test_spoilt_files_become_rows_or_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(300, tmp_path, monkeypatch)


@pytest.mark.long
def test_ten_thousand_spoilt_files_become_rows_or_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(10_000, tmp_path, monkeypatch)

"""Raw files stream whole, ids as they are written, side tables beside; a damaged file is named."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from diet_ray.errors import DataError
from diet_ray.log.files import source_files
from diet_ray.log.formats import columnar, delimited
from diet_ray.log.schema import LogSchema
from diet_ray.log.source import chunks
from tests.shop_log import shop_rows, shop_schema

ALL = ("*.parquet", "*.csv", "*.csv.gz", "*.tsv")
USERS = {"join": [{"files": "users.csv*", "on": "user_id"}], "fields": ["user_id", "age"]}


def read(path: Path, schema: LogSchema) -> pd.DataFrame:
    found = [chunk.table for chunk in chunks(str(path), schema, str(path.parent))]
    return pa.concat_tables(found).to_pandas()


def csv(path: Path, rows: pd.DataFrame) -> Path:
    rows.to_csv(path, index=False)
    return path


def joined_ages(folder: Path, users: list, table: str) -> list:
    (folder / "users.csv").write_text(table)
    rows = shop_rows(len(users)).assign(user_id=users)
    return read(csv(folder / "log.csv", rows), shop_schema(**USERS))["age"].tolist()


def test_files_below_a_folder_come_in_order_of_name_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.csv", "a.parquet", "c/a.csv.gz", ".hidden.csv", "_SUCCESS.csv", "notes.txt", "c/d.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [
        str(Path(path.removeprefix("file://")).relative_to(tmp_path))
        for path in source_files(str(tmp_path), ALL)
    ]
    assert found == ["a.parquet", "b.csv", "c/a.csv.gz", "c/d.tsv"]


def test_one_file_is_a_source_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "export.2017"
    path.touch()
    assert source_files(str(path), ALL) == [str(path)]


@pytest.mark.parametrize("name", ["", "nowhere", "nowhere/log.csv"])
def test_a_source_without_a_file_is_named_with_what_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"no file at {tmp_path}.*{name} matches \*\.parquet, \*\.csv"):
        source_files(str(tmp_path / name), ALL)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "tsv.gz", "parquet"])
def test_every_format_holds_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows, path = shop_rows(), tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        rows.to_parquet(path)
    else:
        rows.to_csv(path, index=False, sep="\t" if suffix.startswith("tsv") else ",")
    found, columns = read(path, shop_schema()), shop_schema().columns()
    assert list(found.columns) == columns
    for name in columns:
        wanted = rows[name].dropna()
        assert (found[name].dropna().index == wanted.index).all()
        assert found[name].dropna().astype(str).tolist() == wanted.astype(str).tolist()


def test_a_file_read_in_small_pieces_is_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, schema = shop_rows(), shop_schema()
    paths = [csv(tmp_path / "log.csv", rows), tmp_path / "log.parquet"]
    rows.to_parquet(paths[1])
    whole = [read(path, schema) for path in paths]
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(columnar, "BATCH_ROWS", 17)
    for path, wanted in zip(paths, whole, strict=True):
        pieces = list(chunks(str(path), schema, str(tmp_path)))
        assert len(pieces) > 3
        ends = [piece.row[-1].as_py() for piece in pieces]
        assert [piece.row[0].as_py() - 1 for piece in pieces] == [0, *ends[:-1]]
        assert pa.concat_tables(piece.table for piece in pieces).to_pandas().equals(wanted)


def test_ids_in_csv_are_text_as_written(tmp_path: Path) -> None:
    ids = ["007", "7", "1e3", "true", "2017-01-01", "9" * 25]
    path = csv(tmp_path / "log.csv", shop_rows(len(ids)).assign(user_id=ids, item_id=ids))
    found = read(path, shop_schema())
    assert found["user_id"].tolist() == found["item_id"].tolist() == ids


def test_a_separator_and_names_for_a_file_without_a_header_are_the_schemas(tmp_path: Path) -> None:
    rows, path = shop_rows(), tmp_path / "log.csv"
    rows.to_csv(path, index=False, header=False, sep="|")
    files = {"separator": "|", "columns": list(rows.columns)}
    assert read(path, shop_schema(files=files))["user_id"].tolist() == rows["user_id"].tolist()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, suffix: str) -> None:
    rows, path = shop_rows().drop(columns=["brand", "bought"]), tmp_path / f"log.{suffix}"
    rows.to_parquet(path) if suffix == "parquet" else csv(path, rows)
    with pytest.raises(DataError, match=rf"log\.{suffix} has no column brand, bought; it has ts, user_id"):
        read(path, shop_schema())


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def scrambled(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 40]) + content[middle + 40 :]


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("log.parquet", cut, "magic bytes|corrupt"),
        ("log.parquet", lambda content: b"", "size is 0 bytes"),
        ("log.csv.gz", cut, "ended before the end-of-stream"),
        ("log.csv.gz", scrambled, "decompress|CRC|Expected"),
        ("log.csv.gz", lambda content: b"plain text", "[Nn]ot a gzipped file"),
        ("log.csv", lambda content: b"", "it has no header"),
        ("log.csv", lambda content: content.decode().encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], says: str
) -> None:
    path, rows = tmp_path / name, shop_rows()
    rows.to_parquet(path) if name.endswith("parquet") else csv(path, rows)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"(?s){name} (cannot be read|is).*({says})"):
        read(path, shop_schema())


def test_a_side_table_adds_its_columns_where_the_key_matches(tmp_path: Path) -> None:
    table = "user_id,age,unused\nu1,30,x\nu2,,x\nu3,50,x\nu3,51,x\n"
    ages = joined_ages(tmp_path, ["u3", "u9", "u1", "u2", "u3"], table)
    assert [None if pd.isna(age) else age for age in ages] == ["50", None, "30", None, "50"]


def test_a_key_of_a_side_table_is_text_as_written(tmp_path: Path) -> None:
    ages = joined_ages(tmp_path, ["7", "007", "7"], "user_id,age\n007,30\n7,40\n")
    assert ages == ["40", "30", "40"]


def test_numeric_keys_of_a_parquet_log_match_a_side_table_in_csv(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,age\n7,40\n8,50\n")
    path = tmp_path / "log.parquet"
    shop_rows(3).assign(user_id=[8, 7, 8]).to_parquet(path)
    assert read(path, shop_schema(**USERS))["age"].tolist() == ["50", "40", "50"]


def test_missing_text_in_a_side_table_is_missing_and_not_an_id(tmp_path: Path) -> None:
    ages = joined_ages(tmp_path, ["a", "b"], 'user_id,age\na,\nb,"30,40"\n')
    assert pd.isna(ages[0]) and ages[1] == "30,40"


def test_a_missing_key_matches_nothing(tmp_path: Path) -> None:
    ages = joined_ages(tmp_path, ["a", None], "user_id,age\na,30\n,99\n")
    assert ages[0] == "30" and pd.isna(ages[1])


def test_a_corrected_side_table_is_read_again(tmp_path: Path) -> None:
    assert joined_ages(tmp_path, ["a"], "user_id,age\na,30\n") == ["30"]
    assert joined_ages(tmp_path, ["a"], "user_id,age\na,3131\n") == ["3131"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"uid,age\n1,2\n", r"users\.csv has no column user_id to join by"),
        (b"user_id,age\n1,2,3\n", r"users\.csv, row 1: it has 3 columns instead of 2"),
        (b"", r"users\.csv is empty"),
        (None, r"matches users\.csv\*"),
    ],
)
def test_a_side_table_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "users.csv").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read(csv(tmp_path / "log.csv", shop_rows()), shop_schema(**USERS))


def test_a_side_table_cut_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "users.csv.gz").write_bytes(gzip.compress(b"user_id,age\nu1,2\n" * 99)[:-12])
    with pytest.raises(DataError, match=r"users\.csv\.gz cannot be read: .*end-of-stream"):
        read(csv(tmp_path / "log.csv", shop_rows()), shop_schema(**USERS))

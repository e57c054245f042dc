"""Files are published whole, stay inside their folder and match their stamp."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import ConfigError, DataError
from diet_ray.storage import FileStamp, Folder, file_at, is_below


def test_a_written_file_reads_back_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path))
    stamp = folder.write("a/b.bin", b"first")
    assert stamp.verified(folder) == b"first"
    folder.write("a/b.bin", b"second")
    assert folder.read("a/b.bin") == b"second"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.bin"]


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_path_that_leads_outside_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="outside"):
        Folder.at(str(tmp_path)) / path


@pytest.mark.parametrize(("content", "says"), [(b"cut", "bytes"), (b"whole fIle", "checksum")])
def test_a_file_that_changed_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    folder = Folder.at(str(tmp_path))
    stamp = FileStamp.of("x.bin", b"whole file")
    folder.write("x.bin", content)
    with pytest.raises(DataError, match=f"x.bin.*{says}"):
        stamp.verified(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json does not exist"):
        Folder.at(str(tmp_path)).read_json("nowhere.json")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("foo://bucket/log", "foo://bucket/log: there is no storage foo://; use a local path, s3://"),
        ("s3://bucket/log", r"s3://bucket/log: .*pip install 'diet-ray\[s3\]'"),
        ("gs://bucket/log", r"gs://bucket/log: .*pip install 'diet-ray\[gcs\]'"),
        ("abfs://place/log", r"abfs://place/log: .*pip install 'diet-ray\[azure\]'"),
        ("hf://datasets/log", "hf://datasets/log: the driver for hf:// is not installed: .*huggingface_hub"),
    ],
)
def test_storage_without_a_driver_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    for module in ("s3fs", "gcsfs", "adlfs", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.split(":")[0], raising=False)
    with pytest.raises(ConfigError, match=says):
        Folder.at(url)


def test_what_lies_in_the_way_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """A file where a folder should be, a folder where a file should be."""
    folder = Folder.at(str(tmp_path))
    folder.write("notes.txt", b"")
    (tmp_path / "pages").mkdir()
    for path in ("notes.txt/run/a.json", "notes.txt/a.json", "pages"):
        with pytest.raises(OSError) as raised:
            folder.write(path, b"content")
        assert raised.value.filename == f"{tmp_path}/{path}" and raised.value.strerror
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["notes.txt", "pages"]


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(staged: str, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diet_ray.storage.os.replace", full)
    with pytest.raises(OSError) as raised:
        Folder.at(str(tmp_path)).write("a.bin", b"content")
    assert raised.value.filename == f"{tmp_path}/a.bin" and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named_before_anything_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(NotADirectoryError) as raised:
        Folder.at(f"{tmp_path}/notes.txt/run").check_writable()
    assert raised.value.filename == f"{tmp_path}/notes.txt/run"
    Folder.at(f"{tmp_path}/new/run").check_writable()
    assert not list((tmp_path / "new/run").iterdir())


def test_object_stores_get_the_file_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put is atomic there, and a rename a copy."""
    folder = Folder.at("memory://bucket/run")
    monkeypatch.setattr(type(folder.fs), "mv", lambda *paths: pytest.fail("a file was moved"))
    folder.write("a/b.bin", b"content")
    assert folder.read("a/b.bin") == b"content"


def test_json_keeps_the_order_of_its_keys(tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path))
    folder.write_json("a.json", {"z": 1, "a": 2})
    assert list(folder.read_json("a.json")) == ["z", "a"]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("pages", "pages/report.html"),
        ("new/", "new/report.html"),
        ("a.html", "a.html"),
        ("x/b.html", "x/b.html"),
    ],
)
def test_a_file_may_be_given_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").mkdir()
    for given in (path, f"{tmp_path}/{path}"):
        folder, name = file_at(given, "report.html")
        assert folder / name == f"{tmp_path}/{written}"
    folder, name = file_at("/report.html", "other.html")
    assert folder / name == "/report.html"


def test_a_digest_is_that_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diet_ray.storage.DIGEST_BYTES", 7)
    folder = Folder.at(str(tmp_path))
    stamp = folder.write("a.bin", bytes(range(100)))
    assert folder.digest("a.bin") == stamp


def test_what_lies_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    data = str(tmp_path / "data")
    assert is_below(data, data) and is_below(f"{data}/a/b", data) and is_below(data, "/")
    assert is_below(f"{tmp_path}/link/a", data) and is_below(f"file://{data}/a", data)
    assert not is_below(f"{data}-2", data) and not is_below(str(tmp_path), data)
    assert not is_below("memory://data/a", data) and is_below("memory://data/a", "memory://data")


def test_a_table_is_read_from_memory_of_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, table, read = Folder.at(str(tmp_path)), pa.table({"a": [1, 2]}), pq.read_table
    folder.write_parquet("t.parquet", table)
    sources = []

    def noted(source: Any, **options: Any) -> pa.Table:
        sources.append(type(source))
        return read(source, **options)

    monkeypatch.setattr(pq, "read_table", noted)
    assert folder.read_parquet("t.parquet") == table and sources == [pa.BufferReader]


@pytest.mark.long
def test_a_process_that_has_read_tables_ends(tmp_path: Path) -> None:
    """Of processes that read them from a file of Python's, one in seven aborted at its exit."""
    Folder.at(str(tmp_path)).write_parquet("t.parquet", pa.table({str(n): range(9999) for n in range(40)}))
    code = (
        "import sys; from diet_ray.storage import Folder; f = Folder.at(sys.argv[1])\n"
        "for _ in range(3): f.read_parquet('t.parquet')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert [subprocess.run(command, check=False).returncode for _ in range(40)] == [0] * 40

"""Files are published whole, stay inside their folder and match their stamp."""

from pathlib import Path

import pytest

from diet_ray.errors import DataError
from diet_ray.storage import FileStamp, Folder


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

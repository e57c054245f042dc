"""A prepared log reads back as its manifest says, or names the file that does not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import DataError
from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.preparation.prepare import prepare
from tests.shop_log import by_block, shop_rows, shop_schema, write_source

SHOP = shop_schema()


def test_what_the_manifest_says_of_a_block_is_what_the_block_holds(shop_log: Path) -> None:
    rows, log = shop_rows(), PreparedLog.open(str(shop_log / "out"))
    ms = rows["ts"].astype("datetime64[ms]").astype("int64")
    for name, frame in by_block(rows).items():
        block = log.blocks[name]
        assert (block.min_ts, block.max_ts) == (ms[frame.index].min(), ms[frame.index].max())
        group = frame["clicked"] + 2 * frame["bought"]
        assert block.label_groups == group.value_counts().to_dict()
        edges = np.cumsum([0, *(part.rows for part in block.parts)]).tolist()
        assert [*(part.first for part in block.parts), len(frame)] == edges


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 0), (3, 4), (10, 37), (40, 10_000)])
def test_a_slice_and_chosen_rows_of_a_block_are_those_of_the_whole(
    tmp_path: Path, start: int, stop: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block has three parts of more than seven rows, read in pieces of seven."""
    monkeypatch.setattr("diet_ray.log.preparation.slices.BASE_SLICES", 3)
    for n in range(3):
        source = write_source(tmp_path / "source", shop_rows()[n::3], f"{n}.parquet")
    log = prepare(SHOP, source, str(tmp_path / "out"))
    block = log.blocks["0001"]
    whole = joined(list(log.chunks(block)))
    assert whole.rows == block.rows and len(block.parts) == 3
    assert all(part.rows > 7 for part in block.parts)
    monkeypatch.setattr("diet_ray.log.dataset.READ_ROWS", 7)
    numbers = np.arange(block.rows)[start:stop]
    pieces = list(log.chunks(block, start, stop))
    assert sum(piece.rows for piece in pieces) == len(numbers)
    if pieces:
        assert np.array_equal(joined(pieces).id_NF, whole.id_NF[numbers])
        assert np.array_equal(joined(pieces).label_NT, whole.label_NT[numbers])
    assert np.array_equal(log.rows(block, numbers).id_NF, whole.id_NF[numbers])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_value_changed(path: Path) -> None:
    """The last byte of a column's pages."""
    content, column = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0).column(1)
    content[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(bytes(content))


def one_row_fewer(path: Path) -> None:
    pq.write_table(pq.read_table(path)[:-1], path)


def without_a_field(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns("brand"), path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncated, "is damaged or missing"),
        (one_value_changed, "is damaged or missing: .*CRC"),
        (one_row_fewer, r"has \d+ rows, its record says \d+"),
        (without_a_field, "is damaged or missing: .*brand"),
        (Path.unlink, "is damaged or missing"),
    ],
)
def test_a_block_that_changed_is_named_when_it_is_read(
    shop_log: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    shutil.copytree(shop_log / "out", tmp_path / "out")
    damage(tmp_path / "out/blocks/0002/part-00000.parquet")
    log = PreparedLog.open(str(tmp_path / "out"))
    for name in ("0001", "subsequent", "validation", "test"):
        assert joined(list(log.chunks(log.blocks[name]))).rows == log.blocks[name].rows
    with pytest.raises(DataError, match=rf"blocks/0002/part-00000\.parquet {says}"):
        list(log.chunks(log.blocks["0002"]))


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ('{"format": 99}', "has an unsupported format version; this version of diet_ray reads 1"),
        ("[]", "has an unsupported format version"),
        ('{"format": 1, "na', "is not valid JSON"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, manifest: str, says: str) -> None:
    (tmp_path / "prepared.json").write_text(manifest)
    with pytest.raises(DataError, match=rf"prepared\.json {says}"):
        PreparedLog.open(str(tmp_path))
    with pytest.raises(DataError, match=rf"prepared\.json {says}"):
        prepare(SHOP, str(tmp_path), str(tmp_path))


def test_a_folder_without_a_prepared_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} is not a prepared log: it has no prepared.json"):
        PreparedLog.open(str(tmp_path))

"""A vocabulary grown and looked up on disk is the one grown in memory."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.log.preparation import growth
from diet_ray.log.preparation.growth import CountWriter, GrowPiece, SliceVocabulary, distinct_ids, grow
from diet_ray.log.vocabulary import Vocabulary, counted
from diet_ray.storage import Folder

ids = st.lists(st.sampled_from(["a", "b", "c", "7", "10", "ü", None]), max_size=12)
files_of_block = st.lists(ids, min_size=1, max_size=3)


@given(blocks=st.lists(files_of_block, min_size=1, max_size=4), min_count=st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_growing_on_disk_is_growing_in_memory(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[list[str | None]]], min_count: int
) -> None:
    out, patch = str(tmp_path_factory.mktemp("growth")), pytest.MonkeyPatch()
    with patch.context() as small:
        small.setattr(growth, "WAITING_IDS", 4)
        small.setattr(growth, "LOOKUP_IDS", 2)
        folder, memory = Folder.at(out), Vocabulary()
        names = [f"{number:04d}" for number in range(1, len(blocks) + 1)]
        table_rows = grow(GrowPiece(out, "user", counts_of(folder, blocks, names), min_count))
        for number, (name, files) in enumerate(zip(names, blocks, strict=True)):
            column = pa.array([id for file in files for id in file], pa.string())
            increment = memory.grow(counted(column), min_count)
            assert folder.read_parquet(f"vocabulary/{name}/user.parquet").equals(increment)
            assert table_rows[name] == memory.rows
            of_slice = SliceVocabulary(folder, "user", names[: number + 1], [distinct_ids(column)])
            assert of_slice.rows == memory.rows
            for form in (column, column.dictionary_encode(), pa.chunked_array([column])):
                assert np.array_equal(of_slice.encode(form), memory.encode(column))


def counts_of(
    folder: Folder, blocks: list[list[list[str | None]]], names: list[str]
) -> dict[str, tuple[str, ...]]:
    """The files of counts of each block, a source file for each of its parts."""
    paths: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    for name, files in zip(names, blocks, strict=True):
        for number, file in enumerate(files):
            writer = CountWriter(folder, ("user",), number)
            writer.add(name, pa.table({"user": pa.array(file, pa.string())}))
            writer.flush()
            paths[name] += tuple(each.path for each in writer.files)
    return paths


def test_a_lookup_of_a_vocabulary_of_integers_as_version_0_1_wrote_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = Folder.at(str(tmp_path_factory.mktemp("old")))
    rows = pa.array([1, 2], pa.int32())
    folder.write_parquet("vocabulary/0001/user.parquet", pa.table({"id": [70, 80], "row": rows}))
    column = pa.array(["80", "90", None])
    assert SliceVocabulary(folder, "user", ["0001"], [column]).encode(column).tolist() == [2, 0, 0]

"""What the files of a checkpoint hold, which rows an increment has, and what is refused."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from diet_ray import layout
from diet_ray.errors import DataError, RunError
from diet_ray.storage import FileStamp, Folder
from diet_ray.training.checkpoints import tensor_file, writing
from diet_ray.training.checkpoints.manifest import Manifest, is_due
from diet_ray.training.checkpoints.restoring import restore, restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.checkpoints.tensor_file import TensorFile
from diet_ray.training.checkpoints.writing import (
    TableSlice,
    dense_state,
    table_slices,
    write_checkpoint,
    write_rows,
)
from diet_ray.training.recommender import Recommender
from diet_ray.training.serialization import to_safetensors
from tests.distinct_blocks import same_tensors
from tests.stored_checkpoint import in_memory, same_state, single_file, state_of, stored
from tests.test_checkpoint import recommender
from tests.test_recommender import batch


def stepped(rows: tuple[int, ...] = (50, 7, 4), steps: int = 3) -> Recommender:
    learner = recommender("finalnet")
    learner.grow(rows, torch.Generator().manual_seed(0))
    for seed in range(steps):
        learner.step(*batch(seed=seed))
    return learner


def learned(learner: Recommender, seed: int, rows: tuple[int, ...]) -> list[np.ndarray]:
    """Grow and take one step; return the ids whose rows it touched."""
    before = learner.tables.rows
    learner.grow(rows, torch.Generator().manual_seed(seed))
    id_NF, label_NT = batch(seed=seed)
    learner.step(id_NF, label_NT)
    return [np.union1d(id_NF[:, field].numpy(), np.arange(before[field], rows[field])) for field in range(3)]


def test_a_full_checkpoint_has_every_tensor_and_moment_by_name() -> None:
    learner, folder = stepped(), in_memory()
    stamps = write_checkpoint(folder, 1, learner, [np.arange(2)] * 3)
    assert [stamp.path for stamp in stamps] == [
        "reference/0001/checkpoint.json",
        "reference/0001/rows-0-0000.safetensors",
        "reference/0001/dense.safetensors",
    ]
    state = {**load(stamps[1].verified(folder)), **load(stamps[2].verified(folder))}
    expected = {name: part for name, part in state_of(learner).items() if not name.startswith("tables")}
    for field, weight in enumerate(learner.tables.weights()):
        expected[f"tables.{field}"] = weight.detach()
        for moment in ("exp_avg", "exp_avg_sq"):
            expected[f"tables.{field}.{moment}"] = learner.table_optimiser.state[weight][moment]
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    manifest = Manifest.read(folder, 1)
    assert manifest and manifest.steps == (3, 3, 3) and manifest.table_rows == (50, 7, 4)
    assert manifest.increments == 0 and manifest.stages == {1}
    assert {stamp for stamp in manifest.files} == set(stamps[1:])


@pytest.mark.parametrize("shard_bytes", [1, 300, 1 << 27])
def test_increments_hold_the_touched_rows_and_restore_to_the_whole_at_every_stage(
    shard_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are read one by one, and where a file has room for a single row."""
    monkeypatch.setattr(writing, "SHARD_BYTES", shard_bytes)
    monkeypatch.setattr(tensor_file, "GAP_BYTES", 0)
    folder, learner, states = in_memory(), recommender(), list[dict[str, torch.Tensor]]()
    sizes = [(50, 7, 4), (50, 7, 4), (60, 9, 4), (64, 9, 4), (64, 9, 5)]
    for stage, rows in enumerate(sizes, start=1):
        touched = learned(learner, stage, rows)
        stamps = write_checkpoint(folder, stage, learner, touched, every=4)
        states.append({name: part.clone() for name, part in state_of(learner).items()})
        manifest = Manifest.read(folder, stage)
        assert manifest and manifest.increments == (0, 1, 2, 3, 0)[stage - 1]
        assert manifest.stages == set(range(1, stage + 1) if stage < 5 else {5})
        if manifest.increments:
            files = [load(stamp.verified(folder)) for stamp in stamps[1:-1]]
            for field, ids in enumerate(touched):
                found = [file[f"tables.{field}.ids"] for file in files if f"tables.{field}" in file]
                assert torch.cat(found).tolist() == ids.tolist()
    for stage, state in enumerate(states, start=1):
        restored = recommender()
        restore(restored, StoredCheckpoint(folder, stage))
        ours = state_of(restored)
        assert ours.keys() == state.keys()
        assert all(torch.equal(ours[name], state[name]) for name in state)


@pytest.mark.parametrize("every", ["auto", 7])
def test_a_stream_writes_what_it_touched(every: Any) -> None:
    """Per stage at most twice the bytes of the touched rows; with the full checkpoints, too, where auto."""
    folder, learner, dim = in_memory(), recommender(), 4
    learner.grow((1500, 40, 9), torch.Generator().manual_seed(0))
    write_checkpoint(folder, 1, learner, learned(learner, 0, (1500, 40, 9)))
    row_bytes, touched_bytes, written, fulls = 3 * 4 * dim, 0, 0, 0
    draw = np.random.default_rng(0)
    for stage in range(2, 52):
        touched = [np.unique(draw.zipf(1.3, 300) % rows) for rows in learner.tables.rows]
        stamps = write_checkpoint(folder, stage, learner, touched, every)
        manifest = Manifest.read(folder, stage)
        assert manifest
        size = sum(stamp.size for stamp in stamps if "rows-" in stamp.path)
        own = row_bytes * sum(map(len, touched))
        if manifest.increments:
            assert size <= 2 * own
        fulls += not manifest.increments
        touched_bytes, written = touched_bytes + own, written + size
    assert fulls >= 2
    if every == "auto":
        assert written <= 2.5 * touched_bytes  # small files: names and ids beside the rows
    restored = recommender()
    restore(restored, StoredCheckpoint(folder, 51))
    assert restored.tables.rows == learner.tables.rows


def test_some_rows_are_read_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "GAP_BYTES", 0)
    folder, learner = in_memory(), stepped((5000, 7, 4))
    write_checkpoint(folder, 1, learner, [])
    whole = sum(folder.fs.size(path) for path in folder.fs.ls(folder / "reference/0001", detail=False))
    checkpoint = StoredCheckpoint(folder, 1)
    read = 0
    usual = folder.fs.cat_ranges

    def counted(paths: Any, starts: Any, stops: Any, **options: Any) -> Any:
        nonlocal read
        content = usual(paths, starts, stops, **options)
        read += sum(map(len, content))
        return content

    monkeypatch.setattr(folder.fs, "cat_ranges", counted)
    ids = np.array([3, 4, 4999])
    rows = checkpoint.rows(0, ids, moments=True)
    weight = learner.tables.weights()[0]
    assert torch.equal(rows.weight_KD, weight[ids].detach())
    assert torch.equal(rows.moments["exp_avg"], learner.table_optimiser.state[weight]["exp_avg"][ids])
    assert read <= tensor_file.FIRST_READ + 3 * 3 * 16 < whole / 10


def test_slices_of_several_processes_are_one_checkpoint() -> None:
    """Rows by their id modulo the number of processes, full and as an increment; any number reads them."""
    folder, learner = in_memory(), stepped()
    processes = 3
    ids = None
    for stage in (1, 2):
        shards = []
        for first in range(processes):
            slices = [
                TableSlice(
                    table.weight_RD[first::processes],
                    {name: moment[first::processes] for name, moment in table.moments.items()},
                    first,
                    processes,
                )
                for table in table_slices(learner)
            ]
            shards += write_rows(folder, stage, slices, ids)
        before = Manifest.read(folder, 1) if stage > 1 else None
        writing.write_manifest(folder, stage, learner, shards, before)
        restored = recommender()
        restore(restored, StoredCheckpoint(folder, stage))
        assert same_state(restored, learner)
        ids = learned(learner, 9, (52, 7, 5))


def test_a_full_checkpoint_is_due() -> None:
    def after(increments: int, rows: int) -> Manifest:
        empty = {"path": "reference/0001/x", "size": 0, "sha256": "", "segments": ()}
        sizes = {"dim": 4, "table_rows": (80, 20), "steps": (1, 1), "dense": empty, "shards": ()}
        return Manifest(**sizes, increments=increments, increment_rows=rows)  # type: ignore[arg-type]

    assert is_due("auto", None, (80, 20), 1) and is_due(5, None, (80, 20), 1)
    assert not is_due("auto", after(3, 60), (80, 20), 39) and is_due("auto", after(3, 60), (80, 20), 40)
    assert [is_due(3, after(number, 0), (80, 20), 1) for number in range(4)] == [False, False, True, True]
    assert is_due(1, after(0, 0), (80, 20), 1)


def test_a_whole_state_puts_back_all_moments() -> None:
    saved, restored = stepped(), recommender("finalnet")
    restore(restored, stored(saved))
    assert same_tensors(saved.dense, restored.dense) and same_tensors(saved.tables, restored.tables)
    for optimiser in ("dense_optimiser", "table_optimiser"):
        ours, theirs = (getattr(learner, optimiser).state_dict()["state"] for learner in (saved, restored))
        assert ours.keys() == theirs.keys()
        for number, moments in ours.items():
            assert moments.keys() == theirs[number].keys()
            for name, value in moments.items():
                assert type(value) is type(theirs[number][name])
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[number][name]))


def test_tables_alone_have_no_dense_part() -> None:
    saved, tables = stepped(), recommender("finalnet")
    before = {name: part.clone() for name, part in tables.dense.state_dict().items()}
    restore_tables(tables, stored(saved))
    assert same_tensors(saved.tables, tables.tables) and not tables.dense_optimiser.state
    assert all(torch.equal(part, before[name]) for name, part in tables.dense.state_dict().items())
    assert all(tables.table_optimiser.state[w]["step"] == 3 for w in tables.tables.weights())


def test_tables_of_a_model_that_never_stepped_come_without_moments() -> None:
    saved, candidate = recommender(), recommender()
    saved.grow((50, 7, 4), torch.Generator().manual_seed(0))
    restore_tables(candidate, stored(saved))
    assert not candidate.table_optimiser.state and candidate.tables.rows == (50, 7, 4)


def test_rows_from_before_the_first_step_have_moments_of_zero() -> None:
    folder, learner = in_memory(), recommender()
    learner.grow((50, 7, 4), torch.Generator().manual_seed(0))
    write_checkpoint(folder, 1, learner, [])
    write_checkpoint(folder, 2, learner, learned(learner, 1, (50, 7, 4)), every=9)
    restored = recommender()
    restore(restored, StoredCheckpoint(folder, 2))
    assert same_state(restored, learner)


def edited(change: Callable[[dict[str, Any]], None]) -> StoredCheckpoint:
    """A checkpoint whose manifest was changed."""
    checkpoint = stored(stepped())
    manifest = checkpoint.folder.read_json(layout.checkpoint(1))
    change(manifest)
    checkpoint.folder.write(layout.checkpoint(1), json.dumps(manifest).encode())
    return StoredCheckpoint(checkpoint.folder, 1)


def test_tables_that_do_not_fit_are_named() -> None:
    with pytest.raises(RunError, match="of another log: it has no table of field 1"):
        restore(
            recommender(),
            edited(lambda m: m.update(table_rows=m["table_rows"][:1], steps=m["steps"][:1], shards=[])),
        )
    with pytest.raises(RunError, match="embeddings of dim 5, not 4"):
        restore_tables(recommender(), edited(lambda m: m.update(dim=5)))
    with pytest.raises(RunError, match="has no row 50 of table 0"):
        restore_tables(recommender(), edited(lambda m: m.update(table_rows=[51, 7, 4])))


@pytest.mark.parametrize("tensor", [None, torch.zeros(9)])
def test_a_dense_part_of_another_shape_is_refused(tensor: torch.Tensor | None) -> None:
    checkpoint = stored(stepped())
    path = layout.checkpoint_dense(1)
    state = load(checkpoint.folder.read(path))
    name = next(name for name in state if name.endswith("towers.0.1.bias"))
    state.pop(name)
    if tensor is not None:
        state[name] = tensor
    checkpoint.folder.write(path, save(state))
    with pytest.raises(RunError, match="of another architecture"):
        restore(recommender(), StoredCheckpoint(checkpoint.folder, 1))


def test_a_manifest_of_another_format_or_none_is_refused() -> None:
    with pytest.raises(RunError, match=r"has format version 7; supported: 1"):
        edited(lambda m: m.update(format=7))
    with pytest.raises(RunError, match=r"checkpoint is damaged: .*checkpoint\.json is no manifest"):
        edited(lambda m: m.pop("steps"))
    with pytest.raises(DataError, match=r"reference/0002/checkpoint\.safetensors does not exist"):
        StoredCheckpoint(in_memory(), 2)


def test_a_file_cut_short_or_missing_is_named() -> None:
    checkpoint = stored(stepped())
    folder, path = checkpoint.folder, layout.checkpoint_rows(1, 0, 0)
    content = folder.read(path)
    for damaged in (content[:-5], content[:50], b"", b"\x80\x04cposix\nsystem\n.", content[:8] + b"}{"):
        folder.write(path, damaged)
        with pytest.raises(RunError, match=r"checkpoint is damaged: .*rows-0-0000\.safetensors: it"):
            restore(recommender(), StoredCheckpoint(folder, 1))
    folder.fs.rm(folder / path)
    with pytest.raises(DataError, match=r"rows-0-0000\.safetensors does not exist"):
        restore(recommender(), StoredCheckpoint(folder, 1))


def test_a_single_file_of_version_0_1_is_cut_short(tmp_path: Any) -> None:
    folder = Folder.at(str(tmp_path))
    single_file(stepped(), folder)
    path = layout.single_file_checkpoint(1)
    folder.write(path, folder.read(path)[:-5])
    with pytest.raises(RunError, match="checkpoint is damaged"):
        restore(recommender(), StoredCheckpoint(folder, 1))


def test_an_attempt_that_was_interrupted_leaves_nothing() -> None:
    folder, learner = in_memory(), stepped()
    folder.write("reference/0001/rows-3-0007.safetensors", b"old")
    stamps = write_checkpoint(folder, 1, learner, [])
    kept = folder.fs.ls(folder / "reference/0001", detail=False)
    assert {path.rsplit("/", 1)[-1] for path in kept} == {s.path.rsplit("/", 1)[-1] for s in stamps}


def test_every_type_of_tensor_is_read_as_it_was_written() -> None:
    folder = in_memory()
    state = {str(dtype): torch.tensor([[1, 0], [1, 1]]).to(dtype) for dtype in tensor_file.DTYPES.values()}
    state["empty"], state["scalar"] = torch.empty(0, 3), torch.tensor(2.5)
    folder.write("x", to_safetensors(state))
    found = TensorFile(folder, "x").tensors(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_tensors_that_share_memory_are_written_in_full() -> None:
    whole = torch.arange(6.0)
    state = {"a": whole, "b": whole, "c": whole.view(2, 3).T, "d": torch.ones(2)}
    stored = load(to_safetensors(state))
    assert stored.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(stored[name], tensor)


def test_the_stamps_of_a_manifest_are_those_of_its_files() -> None:
    checkpoint = stored(stepped())
    manifest = Manifest.read(checkpoint.folder, 1)
    assert manifest and all(isinstance(stamp, FileStamp) for stamp in manifest.files)
    for stamp in manifest.files:
        stamp.verified(checkpoint.folder)
    assert dense_state(stepped()).keys() == checkpoint.dense().keys()

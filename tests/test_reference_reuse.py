"""A run may borrow the reference of another instead of training its own."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import diet_ray
from actors.placement import ResourceConfig
from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.errors import RunError
from diet_ray.runs.run import Run
from pipelines.distill import distill
from tests.tiny_run import TINY


def changed(**update: object) -> RunConfig:
    return RunConfig.model_validate({**TINY.model_dump(), **update})


def lent(drift_log: str, run: Path, run_dir: str, config: RunConfig = TINY, scores: str | None = None) -> Run:
    return diet_ray.distill(
        drift_log, str(run), config, reference_of=run_dir, score_cache=scores, probe_seeds=0
    )


def test_a_run_of_another_ratio_may_borrow(drift_log: str, run_dir: str, tmp_path: Path) -> None:
    run = lent(drift_log, tmp_path, run_dir, changed(ratio=0.02))
    assert run.records[-1].metrics.memory.rows < Run.read(run_dir).records[-1].metrics.memory.rows


def test_a_borrowed_reference_gives_the_memory_of_a_trained_one_and_runs_share_its_scores(
    drift_log: str, run_dir: str, tmp_path: Path
) -> None:
    def memory(name: str) -> bytes:
        lent(drift_log, tmp_path / name, run_dir, scores=str(tmp_path / "scores"))
        return (tmp_path / name / layout.memory(3)).read_bytes()

    own = (Path(run_dir) / layout.memory(3)).read_bytes()
    assert memory("first") == memory("second") == own
    first, lender = Run.read(str(tmp_path / "first")), Run.read(run_dir)
    for stage in (1, 2, 3):
        first.verify(stage)
        for path in (layout.checkpoint(stage), layout.memory(stage)):
            assert (tmp_path / "first" / path).read_bytes() == (Path(run_dir) / path).read_bytes()
        losses = [run.records[stage - 1].metrics.training_loss for run in (first, lender)]
        assert losses[0] == losses[1]
    kept = sorted((tmp_path / "scores").rglob("*.parquet"))
    assert {path.parent.name for path in kept} == {"0001", "0002", "0003"}
    # That the scores are read and not made anew shows where they are others.
    for path in kept:
        table = pq.read_table(path)
        other = pa.array(table["el2n"].to_numpy()[::-1].copy())
        pq.write_table(table.set_column(1, "el2n", other), path)
    assert memory("third") != own


@pytest.mark.parametrize("key", ["seed", "dim", "reference", "training"])
def test_a_reference_trained_otherwise_is_refused_and_the_key_named(
    drift_log: str, run_dir: str, tmp_path: Path, key: str
) -> None:
    other = {"seed": 1, "dim": 4, "reference": {"name": "dcn"}, "training": {"batch_size": 64}}[key]
    with pytest.raises(RunError, match=f"cannot be reused: {key}"):
        lent(drift_log, tmp_path, run_dir, changed(**{key: other}))
    assert not list(tmp_path.iterdir())


def test_an_unfinished_or_damaged_lender_is_refused(drift_log: str, run_dir: str, tmp_path: Path) -> None:
    lender = tmp_path / "lender"
    shutil.copytree(run_dir, lender)
    (lender / layout.checkpoint_dense(2)).write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"cannot be reused: .*dense\.safetensors has 7 bytes"):
        lent(drift_log, tmp_path / "a", str(lender))
    (lender / "stages/0003.json").unlink()
    with pytest.raises(RunError, match="has 2 of 3 stages"):
        lent(drift_log, tmp_path / "b", str(lender))


def test_a_run_that_borrows_places_one_worker_for_its_reference(
    drift_log: str, run_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns nothing: several would hold their GPUs for nothing."""

    def place(resources: ResourceConfig) -> None:
        raise RunError(f"{resources.reference_workers} workers, {resources.scorers} scorers")

    monkeypatch.setattr("pipelines.distill.place", place)
    asked = ResourceConfig(reference_workers=4, scorers=3)
    for lender, workers in ((run_dir, 1), (None, 4)):
        with pytest.raises(RunError, match=f"{workers} workers, 3 scorers"):
            distill(drift_log, str(tmp_path / f"of-{workers}"), TINY, asked, reference_of=lender)

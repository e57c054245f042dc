"""The main job over Ray on a small log: distil, go on, refuse, compare."""

import json
import shutil
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import diet_ray
from actors.placement import ResourceConfig
from diet_ray import layout
from diet_ray.errors import ConfigError, DataError, RunError
from diet_ray.evaluation.methods import METHODS
from diet_ray.evaluation.rehearsal_weight import WEIGHTS
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.drift import drift_schema, write_drift_log
from diet_ray.log.drift_config import DriftConfig
from diet_ray.log.preparation.prepare import prepare
from diet_ray.runs.run import Run
from pipelines.distill import distill
from pipelines.evaluate import evaluate, results_table
from pipelines.options.distill import Distill
from pipelines.options.inspection import Inspect
from pipelines.runtime.candidates import load_candidates
from pipelines.runtime.recipe import Recipe
from pipelines.runtime.run_access import log_of
from tests.tiny_run import FIT, TINY

pytestmark = pytest.mark.usefixtures("ray_here")
TWO_SCORERS = ResourceConfig(scorers=2)


def newest(run: str) -> Path:
    return Path(run) / "memory" / "0003" / "memory.parquet"


def test_in_one_process_and_over_actors_with_two_scorers_the_memories_are_the_same(
    run_dir: str, drift_log: str, tmp_path: Path
) -> None:
    distill(drift_log, str(tmp_path / "two"), TINY, TWO_SCORERS)
    for stage in (1, 2, 3):
        over_actors, in_process = (
            tmp_path / "two" / layout.memory(stage),
            Path(run_dir) / layout.memory(stage),
        )
        assert over_actors.read_bytes() == in_process.read_bytes()


def test_the_memory_file_opens_in_pandas_and_polars_without_our_code(run_dir: str, drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    frame, lazy = pd.read_parquet(newest(run_dir)), pl.read_parquet(newest(run_dir))
    assert list(frame) == lazy.columns == ["embedding", "logits", "stage", "label_group", "influence"]
    assert len(frame) == len(lazy) == round(TINY.ratio * sum(b.rows for b in log.history))
    assert {len(e) for e in frame["embedding"]} == {len(log.fields) * TINY.dim}
    assert lazy.schema["logits"] == pl.Array(pl.Float32, len(log.tasks))
    described = json.loads(pq.read_schema(newest(run_dir)).metadata[b"diet_ray"])
    assert described["fields"] == list(log.fields) and described["tasks"] == list(log.tasks)
    assert (Path(run_dir) / described["reference"]).is_file()


def test_every_stage_is_committed_with_files_that_verify(run_dir: str, drift_log: str) -> None:
    run, log = Run.read(run_dir), PreparedLog.open(drift_log)
    assert [record.block for record in run.records] == [block.name for block in log.history]
    for record in run.records:
        run.verify(record.stage)
        assert record.metrics.block_rows == log.history[record.stage - 1].rows
        seconds = record.metrics.seconds
        assert seconds.train > 0 and seconds.score > 0 and seconds.distill > 0 and seconds.probe is None


def test_a_complete_run_is_left_as_it_is(run_dir: str, drift_log: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(run_dir).glob("*/*/*")}
    distill(drift_log, run_dir, TINY, ResourceConfig())
    assert before == {path: path.stat().st_mtime_ns for path in Path(run_dir).glob("*/*/*")}


def test_a_distillation_ends_with_a_verdict_and_the_next_command(
    run_dir: str, drift_log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "my run")
    shutil.copytree(run_dir, run, ignore=shutil.ignore_patterns("evaluation"))
    settings = Recipe.model_validate(TINY.model_dump())
    Distill(drift_log, run, probe_seeds=0, settings=settings)()
    said = capsys.readouterr().err
    assert "The memory is" not in said and not (Path(run) / layout.VERDICT).exists()
    assert said.splitlines()[-1] == (
        f"next: diet-ray evaluate --run '{run}' --methods warmup,random,newest,diet,full "
        "--candidates dcn,wukong --seeds 2"
    )
    Distill(drift_log, run, probe_seeds=1, settings=settings)()
    verdict, following = capsys.readouterr().err.splitlines()[-2:]
    assert verdict.startswith("The memory is ") and "AUC on block subsequent: memory 0." in verdict
    assert following == said.splitlines()[-1]
    evidence = json.loads((Path(run) / layout.VERDICT).read_text())
    assert [each["other"] for each in evidence["contrasts"]] == ["reference", "random", "newest"]
    Inspect(run)()
    assert "The memory is" in capsys.readouterr().out


def test_a_run_of_another_config_or_log_is_refused(run_dir: str, drift_log: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ratio: the run has 0\.05, this command asks for 0\.06"):
        distill(drift_log, run_dir, TINY.model_copy(update={"ratio": 0.06}), ResourceConfig())
    other, config = str(tmp_path), DriftConfig(rows=3_000, seed=1)
    prepare(drift_schema(config), write_drift_log(config, other), other)
    with pytest.raises(RunError, match="fingerprint: the run has"):
        distill(other, run_dir, TINY, ResourceConfig())


def test_a_ratio_below_one_row_per_label_group_is_refused(drift_log: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ratio too small: 1 rows for 4 label groups"):
        diet_ray.distill(drift_log, str(tmp_path), TINY.model_copy(update={"ratio": 0.001}))


def test_a_block_cut_in_the_middle_stops_the_run_and_keeps_what_was_committed(
    run_dir: str, drift_log: str, tmp_path: Path
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    shutil.copytree(drift_log, log)
    part = next((log / "blocks" / "0002").iterdir())
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{part.name} is damaged"):
        distill(str(log), str(run), TINY, ResourceConfig())
    assert Run.read(str(run)).stage == 1
    Run.read(str(run)).verify(1)
    part.write_bytes(whole)
    distill(str(log), str(run), TINY, ResourceConfig())
    assert newest(str(run)).read_bytes() == newest(run_dir).read_bytes()


def test_evaluation_gives_a_row_per_cell_and_runs_no_cell_twice(run_dir: str, drift_log: str) -> None:
    found = evaluate(
        drift_log, run_dir, METHODS, load_candidates(["finalnet", "tests.own_backbone:Wide"]), 1, FIT
    )
    assert len(found) == 2 * len(METHODS)
    cells = {path: path.stat().st_mtime_ns for path in (Path(run_dir) / "evaluation/cells").iterdir()}
    again = evaluate(drift_log, run_dir, METHODS, load_candidates(["finalnet"]), 2, FIT)
    assert len(again) == 2 * len(METHODS)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in cells.items())
    stored = pd.read_parquet(Path(run_dir) / "evaluation/results.parquet")
    told = pd.DataFrame(json.loads((Path(run_dir) / "evaluation/results.json").read_text()))
    # A smaller evaluation after a larger one leaves all cells.
    assert len(stored) == len(told) == 3 * len(METHODS)
    assert set(stored["candidate"]) == {"finalnet", "tests.own_backbone:Wide"}
    columns = {"method", "candidate", "seed", "auc", "logloss", "auc_is_like", "rows_trained", "seconds"}
    assert columns <= set(stored) and columns <= set(told)
    assert len(results_table(again).rows) == len(METHODS)
    # The reference is of finalnets: that candidate is marked.
    assert dict(zip(stored["candidate"], stored["in_reference"], strict=True)) == {
        "finalnet": True,
        "tests.own_backbone:Wide": False,
    }
    shown = results_table(stored)
    assert [str(column.header) for column in shown.columns][1:] == [
        "finalnet *",
        "tests.own_backbone:Wide",
        "mean",
    ]
    assert "* its architecture is one of the reference's" in str(shown.caption)
    # What the baseline EL2N scored is there for the next who asks.
    kept = (Path(run_dir) / "studies/scores").rglob("*.parquet")
    assert {path.parent.name for path in kept} == {"0001", "0002", "0003"}


def test_the_weight_of_rehearsal_is_chosen_once_for_a_method(run_dir: str, drift_log: str) -> None:
    found = evaluate(drift_log, run_dir, ("diet", "warmup"), load_candidates(["finalnet"]), 2, FIT)
    kept = json.loads((Path(run_dir) / "evaluation/rehearsal/diet.json").read_text())
    scores = {float(weight): auc for weight, auc in kept["validation_auc"].items()}
    assert scores.keys() == set(WEIGHTS) and scores[kept["weight"]] == max(scores.values())
    by_method = found.groupby("method")["rehearsal_weight"]
    assert by_method.unique()["diet"].tolist() == [kept["weight"]]
    assert by_method.count()["warmup"] == 0


def test_cells_trained_in_another_way_are_not_mixed(run_dir: str, drift_log: str) -> None:
    evaluate(drift_log, run_dir, ("warmup",), load_candidates(["finalnet"]), 1, FIT)
    with pytest.raises(
        RunError, match=r"settings\.json holds different settings \(candidate\.epochs: the run has 2, this"
    ):
        evaluate(
            drift_log,
            run_dir,
            ("warmup",),
            load_candidates(["finalnet"]),
            1,
            FIT.model_copy(update={"epochs": 1}),
        )


def test_an_unknown_candidate_is_refused_before_any_training(run_dir: str, drift_log: str) -> None:
    with pytest.raises(ConfigError, match="unknown model 'dcm'"):
        evaluate(drift_log, run_dir, ("warmup",), load_candidates(["dcm"]), 1, FIT)


def test_an_unfinished_run_is_not_evaluated(run_dir: str, drift_log: str, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run/stages/0003.json").unlink()
    with pytest.raises(RunError, match="has 2 of 3 stages"):
        evaluate(drift_log, str(tmp_path / "run"), ("warmup",), load_candidates(["finalnet"]), 1, FIT)


def test_a_memory_of_another_schema_is_refused(run_dir: str, drift_log: str, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    path = newest(str(tmp_path / "run"))
    stored = pq.read_table(path)
    described = json.loads(stored.schema.metadata[b"diet_ray"]) | {
        "tasks": ["is_click", "long_view", "share"]
    }
    pq.write_table(stored.replace_schema_metadata({"diet_ray": json.dumps(described)}), path)
    with pytest.raises(RunError, match="memory of another schema: tasks is"):
        evaluate(drift_log, str(tmp_path / "run"), ("diet",), load_candidates(["finalnet"]), 1, FIT)


def test_a_run_remembers_where_its_log_is(run_dir: str, drift_log: str, tmp_path: Path) -> None:
    assert log_of(run_dir) == drift_log
    with pytest.raises(RunError, match="is not a run"):
        log_of(str(tmp_path))

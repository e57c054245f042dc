"""What the cells of a run share: baseline rows, the weight of rehearsal, data of trials, provenance."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import diet_ray
from diet_ray import layout
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.distillation.baselines import el2n_rows, kmeans_rows, random_rows
from diet_ray.distillation.scored_rows import EmbeddedRows, LocalScorer, PartScorer
from diet_ray.errors import DataError, RunError
from diet_ray.evaluation import evaluator as evaluator_module
from diet_ray.evaluation import probe as probe_module
from diet_ray.evaluation import rehearsal_weight as weight_module
from diet_ray.evaluation.cell import Setting, run_cell
from diet_ray.evaluation.evaluator import Evaluator
from diet_ray.evaluation.methods import Method
from diet_ray.evaluation.probe import probe_memory
from diet_ray.evaluation.rehearsal_weight import rehearsal_scores
from diet_ray.evaluation.trajectory import full_trajectory, reduced_trajectory
from diet_ray.evaluation.verdicts import memory_probe as memory_probe_module
from diet_ray.evaluation.verdicts.evidence import stored_evidence
from diet_ray.evaluation.verdicts.memory_probe import judged
from diet_ray.evaluation.verdicts.verdict import verdict
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples
from diet_ray.runs.run import Run
from diet_ray.runs.state import RunState
from diet_ray.seeding import derived_seed
from diet_ray.storage import Folder
from diet_ray.training.candidate_setup import validation_rows
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.embedding import score_block
from diet_ray.version import __version__
from tests.distinct_blocks import HEAD, SMALL, write_distinct_blocks

FIT = FitConfig(epochs=2, batch_size=16, validation_rows=60, rehearsal_weight=3.0)
OPEN = FIT.model_copy(update={"rehearsal_weight": "auto"})
CANDIDATE = CandidateConfig(name="dcn", options={"hidden": (6,)}, head=HEAD)
BUDGETS = (32, 28)  # 0.2 of 160 and of 140 rows


class Prepared(NamedTuple):
    log: PreparedLog
    run: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("evaluator")
    log = write_distinct_blocks(folder / "log")
    diet_ray.distill(str(folder / "log"), str(folder / "run"), SMALL, probe_seeds=0)
    return Prepared(log, folder / "run")


@pytest.fixture
def prepared(finished: Prepared, tmp_path: Path) -> Prepared:
    """A copy of the run in which nothing has been evaluated yet."""
    shutil.copytree(finished.run, tmp_path / "run")
    return Prepared(finished.log, tmp_path / "run")


def evaluator(prepared: Prepared) -> Evaluator:
    state = RunState(prepared.log, Folder.at(str(prepared.run)), SMALL)
    return Evaluator(state, str(prepared.run))


def selected(prepared: Prepared, method: str, seed: int) -> Examples:
    """The rows of a baseline, block by block, under the checkpoint of each block."""
    own, parts = evaluator(prepared), list[Examples]()
    for stage, budget in enumerate(BUDGETS, start=1):
        scorer = LocalScorer(PartScorer(own.state.checkpoint(stage), own.log, own.log.block(stage)))
        draw_seed = derived_seed(seed, method, stage)
        if method == "random":
            chosen = random_rows(scorer, budget, draw_seed)
        elif method == "kmeans":
            chosen = kmeans_rows(scorer, budget, draw_seed)
        else:
            chosen = el2n_rows(scorer, budget, SMALL.method.boundary.quantile)
        embedded = EmbeddedRows.joined(scorer.embed(chosen))
        soft = 1 / (1 + np.exp(-embedded.logit_NT.astype(np.float64)))
        parts.append(Examples(torch.tensor(embedded.emb_NFD), torch.tensor(soft).float()))
    return Examples(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


@pytest.mark.parametrize("method", ["random", "kmeans", "el2n"])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_baseline_has_as_many_rows_of_each_block_with_soft_labels(
    prepared: Prepared, method: Any, seed: int
) -> None:
    rows, expected = evaluator(prepared).reduced_rows(method, seed), selected(prepared, method, seed)
    assert rows.rows == sum(BUDGETS)
    assert torch.equal(rows.emb_NFD, expected.emb_NFD)
    torch.testing.assert_close(rows.label_NT, expected.label_NT)
    name = "el2n" if method == "el2n" else f"{method}-{seed}"
    path = f"evaluation/selected/{name}.parquet"
    assert (prepared.run / path).exists()
    stored = evaluator(prepared).state.stored_rows(path)
    assert stored.stage_N.tolist() == [1] * 32 + [2] * 28
    # What is stored is read, not selected again.
    for checkpoint in prepared.run.glob("reference/*/*"):
        checkpoint.unlink()
    again = evaluator(prepared).reduced_rows(method, seed)
    assert torch.equal(again.emb_NFD, rows.emb_NFD) and torch.equal(again.label_NT, rows.label_NT)
    if method == "el2n":
        assert torch.equal(evaluator(prepared).reduced_rows(method, seed + 1).emb_NFD, rows.emb_NFD)


def test_scores_of_a_block_are_kept_for_others(prepared: Prepared) -> None:
    evaluator(prepared).reduced_rows("el2n", 0)
    kept = sorted(str(path.relative_to(prepared.run)) for path in prepared.run.glob("studies/scores/*/*"))
    assert kept == [f"{layout.scores(stage)}/rows-0-{rows}.parquet" for stage, rows in ((1, 160), (2, 140))]


def test_the_rows_of_diet_are_the_newest_memory(prepared: Prepared) -> None:
    own = evaluator(prepared)
    memory = own.state.memory(2)
    assert memory
    rows = own.reduced_rows("diet", 5)
    assert torch.equal(rows.emb_NFD, memory.emb_NFD)
    assert torch.equal(rows.label_NT, memory.logit_NT.sigmoid())


@pytest.mark.parametrize("method", ["cold", "full", "warmup", "random", "diet"])
def test_a_cell_gets_the_newest_checkpoint_and_the_rows_of_its_method_and_seed(
    prepared: Prepared, method: Method
) -> None:
    own = evaluator(prepared)
    setting = Setting(own.log, SMALL.dim, SMALL.training, FIT)
    checkpoint = own.state.stored_checkpoint(2) if method not in ("cold", "full") else None
    reduced = own.reduced_rows(method, 3) if method in ("random", "diet") else None
    _, expected = run_cell(method, CANDIDATE, 3, setting, checkpoint, reduced)
    _, result = own.run_cell(method, CANDIDATE, 3, FIT)
    for part in ("after", "before", "validation", "epochs", "rehearsal_weight"):
        assert getattr(result, part) == getattr(expected, part)


def test_an_open_weight_is_chosen_once_per_method_and_fit(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, tried = evaluator(prepared), list[Any]()
    scores = iter([{1.0: 0.6, 3.0: 0.5}, {1.0: 0.1, 3.0: 0.5}, {1.0: 0.6, 3.0: 0.5}])

    def judged(rows: Examples, checkpoint: StoredCheckpoint, setting: Setting) -> dict[float, float]:
        tried.append((rows, checkpoint, setting))
        return next(scores)

    monkeypatch.setattr(evaluator_module, "rehearsal_scores", judged)
    assert own.with_weight("diet", FIT) == FIT and not tried
    assert own.with_weight("diet", OPEN) == OPEN.model_copy(update={"rehearsal_weight": 1.0})
    rows, checkpoint, setting = tried[0]
    assert torch.equal(rows.emb_NFD, own.reduced_rows("diet", 0).emb_NFD)
    assert checkpoint.stage == 2 and checkpoint.folder == own.folder
    assert setting == Setting(own.log, SMALL.dim, SMALL.training, OPEN)
    path = layout.rehearsal_weight("diet")
    assert own.folder.read_json(path) == {
        "fit": OPEN.model_dump(mode="json"),
        "weight": 1.0,
        "validation_auc": {"1.0": 0.6, "3.0": 0.5},
    }
    assert evaluator(prepared).with_weight("diet", OPEN).rehearsal_weight == 1.0 and len(tried) == 1
    # Another method, and another fit, have weights of their own.
    assert own.with_weight("random", OPEN).rehearsal_weight == 3.0
    assert torch.equal(tried[1][0].emb_NFD, own.reduced_rows("random", 0).emb_NFD)
    longer = OPEN.model_copy(update={"epochs": 3})
    assert own.with_weight("random", longer).rehearsal_weight == 1.0 and len(tried) == 3
    assert own.with_weight("random", OPEN.model_copy(update={"rehearsal": 0.0})).rehearsal_weight == "auto"


def test_a_weight_that_version_0_1_chose_holds(prepared: Prepared) -> None:
    """It wrote null for "auto"."""
    fit = {**OPEN.model_dump(mode="json"), "rehearsal_weight": None}
    own = evaluator(prepared)
    own.folder.write_json(layout.rehearsal_weight("diet"), {"fit": fit, "weight": 7.0})
    assert own.with_weight("diet", OPEN).rehearsal_weight == 7.0


def test_a_cell_with_an_open_weight_takes_the_chosen_one(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_module, "JUDGES", (CANDIDATE,))
    own = evaluator(prepared)
    setting = Setting(own.log, SMALL.dim, SMALL.training, OPEN)
    scores = rehearsal_scores(own.reduced_rows("diet", 0), own.state.stored_checkpoint(2), setting)
    best = max(scores, key=lambda weight: scores[weight])
    _, result = own.run_cell("diet", CANDIDATE, 1, OPEN)
    chosen = OPEN.model_copy(update={"rehearsal_weight": best})
    assert result.rehearsal_weight == best
    assert result.after == own.run_cell("diet", CANDIDATE, 1, chosen)[1].after


def test_a_trajectory_is_of_full_training_or_of_reduced_rows(prepared: Prepared) -> None:
    own = evaluator(prepared)
    setting = Setting(own.log, SMALL.dim, SMALL.training, FIT)
    full, random = (own.trajectory(method, CANDIDATE, 3, FIT) for method in ("full", "random"))
    rows = own.reduced_rows("random", 3)
    expected = reduced_trajectory(CANDIDATE, 3, setting, own.state.stored_checkpoint(2), rows)
    assert [(p.steps, p.auc) for p in random] == [(p.steps, p.auc) for p in expected]
    whole = full_trajectory(CANDIDATE, 3, setting)
    assert [(p.steps, p.auc) for p in full] == [(p.steps, p.auc) for p in whole]


def test_trials_work_on_the_newest_memory_and_validation_rows_in_its_space(prepared: Prepared) -> None:
    own = evaluator(prepared)
    data = own.trial_data(40)
    expected = validation_rows(own.state.checkpoint(2), own.log, 40)
    assert data.validation.rows == 40
    assert torch.equal(data.validation.emb_NFD, expected.emb_NFD)
    assert not torch.equal(expected.emb_NFD, validation_rows(own.state.checkpoint(1), own.log, 40).emb_NFD)
    assert torch.equal(data.reduced.emb_NFD, own.reduced_rows("diet", 0).emb_NFD)


def test_provenance_names_log_run_and_newest_files(prepared: Prepared) -> None:
    run = Run.read(str(prepared.run))
    memory, reference = (
        Folder.at(str(prepared.run)).digest(path).sha256 for path in (layout.memory(2), layout.checkpoint(2))
    )
    assert evaluator(prepared).provenance() == {
        "log": "small",
        "log_fingerprint": prepared.log.fingerprint,
        "run": str(prepared.run),
        "config_sha256": run.config_sha256,
        "stage": 2,
        "memory_sha256": memory,
        "reference_sha256": reference,
        "diet_ray_version": __version__,
    }


def test_a_stream_cannot_be_evaluated(prepared: Prepared) -> None:
    state: Any = RunState(object(), Folder.at(str(prepared.run)), SMALL)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="some-run is a stream: it has no validation and test block"):
        Evaluator(state, "some-run")


def test_a_verdict_compares_probes_on_the_memory_and_on_random_rows_with_the_reference(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "PROBE", CANDIDATE)
    own, log = evaluator(prepared), prepared.log
    text = judged(own, 2)
    found = stored_evidence(own.folder, 2)
    assert found and text == verdict(found).text and found.seeds == 2
    block, newest = log.blocks["subsequent"], own.state.checkpoint(2)
    auc: dict[str, list[float]] = {"reference": [score_block(newest, log, block).auc]}
    for method in ("diet", "random", "newest"):
        auc[method] = [
            probe_memory(
                own.reduced_rows(method, seed),
                own.state.stored_checkpoint(2),
                log,
                block,
                SMALL.dim,
                seed,
            ).auc
            for seed in range(2)
        ]
    assert found.auc == pytest.approx(np.mean(auc["diet"]), abs=1e-12)
    assert [each.other for each in found.contrasts] == ["reference", "random", "newest"]
    for each in found.contrasts:
        assert each.auc == pytest.approx(np.mean(auc[each.other]), abs=1e-6)
        assert each.gap == pytest.approx(found.auc - each.auc, abs=1e-6) and each.error
    # What is known is not measured again; other seeds are.
    monkeypatch.setattr(memory_probe_module, "probe_logits", lambda *given: pytest.fail("probed again"))
    assert judged(own, 2) == text
    with pytest.raises(pytest.fail.Exception, match="probed again"):
        judged(own, 1)
    assert stored_evidence(own.folder, 1) is None


def test_a_probe_that_diverges_and_a_block_of_one_class_give_no_verdict(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = evaluator(prepared)

    def diverged(*given: Any) -> None:
        raise DataError("the model diverged")

    monkeypatch.setattr(memory_probe_module, "probe_logits", diverged)
    assert judged(own, 1) == "No verdict on the memory: the model diverged"
    monkeypatch.setattr(memory_probe_module, "judge_memory", lambda *given: None)
    assert "one class only in block subsequent" in judged(own, 1)
    assert not own.folder.exists(layout.VERDICT)

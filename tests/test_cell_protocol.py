"""The protocol of the comparison, replayed step by step: what is learned, and which block each score is of.

In the small log every block has labels of its own kind, so a score of the wrong block, or taken at the wrong
moment, is another number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from diet_ray.config import CandidateConfig, FitConfig, TrainingConfig
from diet_ray.errors import ConfigError
from diet_ray.evaluation import cell as cell_module
from diet_ray.evaluation import probe as probe_module
from diet_ray.evaluation import rehearsal_weight as weight_module
from diet_ray.evaluation import trajectory as trajectory_module
from diet_ray.evaluation.cell import CellResult, Setting, run_cell
from diet_ray.evaluation.methods import METHODS, Method
from diet_ray.evaluation.probe import probe_memory
from diet_ray.evaluation.rehearsal_weight import JUDGES, WEIGHTS, rehearsal_scores
from diet_ray.evaluation.trajectory import Point, full_trajectory, reduced_trajectory
from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples, predict
from diet_ray.seeding import numpy_generator
from diet_ray.training.candidate import CandidateTraining, EpochScore, score_rows
from diet_ray.training.candidate_setup import candidate_recommender, validation_rows
from diet_ray.training.checkpoints.restoring import restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.embedding import embed_rows, score_block
from diet_ray.training.learning import learn_block
from diet_ray.training.metrics import Scores, TaskScore, score_tasks
from diet_ray.training.recommender import Recommender
from diet_ray.training.rehearsal import Rehearsal
from tests.distinct_blocks import HEAD, ROWS, write_distinct_blocks
from tests.stored_checkpoint import stored

DIM = 4
TRAINING = TrainingConfig(batch_size=32, learning_rate=0.02)
FIT = FitConfig(epochs=3, batch_size=16, learning_rate=0.01, validation_rows=60, rehearsal_weight=3.0)
CANDIDATE = CandidateConfig(name="dcn", options={"hidden": (6,)}, head=HEAD)
OWN_RATE = CANDIDATE.model_copy(update={"learning_rate": 0.003})
SMALL_REDUCED = ("newest", "random", "kmeans", "el2n", "diet")


class Prepared(NamedTuple):
    log: PreparedLog
    checkpoint: StoredCheckpoint
    reduced: Examples


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The log, a reference that has learned its history, and rows in the reference's space."""
    log = write_distinct_blocks(tmp_path_factory.mktemp("cells"))
    reference = candidate_recommender(CANDIDATE, 9, log, DIM, TRAINING)
    for block in log.history:
        learn_block(reference, log, block, TRAINING, 9)
    rows = embed_rows(reference, joined(list(log.chunks(log.history[1]))).take(np.arange(0, 140, 3)))
    soft = Examples(rows.emb_NFD, predict(reference.dense, rows.emb_NFD).sigmoid())
    return Prepared(log, stored(reference), soft)


class Replay(NamedTuple):
    """What a cell must report."""

    before: Scores | None  # cold has no row of a table yet
    after: Scores
    validation: Scores
    epochs: list[float]
    rows_trained: int


def replayed(
    prepared: Prepared, method: Method, candidate: CandidateConfig, seed: int, fit: FitConfig
) -> Replay:
    """The protocol of section 5, written down once more."""
    log, blocks = prepared.log, prepared.log.blocks
    alone = method in ("cold", "full")
    model = candidate_recommender(candidate, seed, log, DIM, TRAINING, joined=alone)
    rows_trained, epochs, rehearsal = ROWS["subsequent"], list[float](), None
    if not alone:
        restore_tables(model, prepared.checkpoint)
    if method == "full":
        for name in ("0001", "0002"):
            learn_block(model, log, blocks[name], TRAINING, seed)
            rows_trained += ROWS[name]
    if method in SMALL_REDUCED:
        validation = validation_rows(model, log, fit.validation_rows)
        rate = candidate.learning_rate or fit.learning_rate
        own_fit = fit.model_copy(update={"learning_rate": rate})
        training = CandidateTraining(model.dense, prepared.reduced, validation, own_fit, seed)
        training.run()
        epochs = [score.auc for score in training.scores]
        if fit.rehearsal:
            weight = float(fit.rehearsal_weight)
            rehearsal = Rehearsal(prepared.reduced, share=fit.rehearsal, weight=weight, seed=seed)
        rows_trained += len(epochs) * prepared.reduced.rows
    before = None if method == "cold" else score_block(model, log, blocks["test"])
    learn_block(model, log, blocks["subsequent"], TRAINING, seed, rehearsal=rehearsal)
    rows_trained += rehearsal.rows_drawn if rehearsal else 0
    return Replay(
        before,
        after=score_block(model, log, blocks["test"]),
        validation=score_block(model, log, blocks["validation"]),
        epochs=epochs,
        rows_trained=rows_trained,
    )


def cell(
    prepared: Prepared,
    method: Method,
    candidate: CandidateConfig = CANDIDATE,
    seed: int = 1,
    fit: FitConfig = FIT,
    training: TrainingConfig = TRAINING,
) -> tuple[Recommender, CellResult]:
    setting = Setting(prepared.log, DIM, training, fit)
    given: dict[str, Any] = {} if method in ("cold", "full") else {"checkpoint": prepared.checkpoint}
    if method in SMALL_REDUCED:
        given["reduced"] = prepared.reduced
    return run_cell(method, candidate, seed, setting, **given)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("candidate", [CANDIDATE, OWN_RATE], ids=["usual rate", "own rate"])
def test_a_cell_learns_and_scores_as_the_protocol_says(
    prepared: Prepared, method: Method, candidate: CandidateConfig
) -> None:
    learner, result = cell(prepared, method, candidate)
    expected = replayed(prepared, method, candidate, 1, FIT)
    assert result.after == expected.after
    assert result.validation == expected.validation
    assert result.before == expected.before
    assert result.epochs == expected.epochs and result.rows_trained == expected.rows_trained
    scores = [score for score in (result.before, result.after, result.validation) if score]
    assert len({score.auc for score in scores}) == len(scores)  # each shows its block and its moment
    assert result.rehearsal_weight == (3.0 if method in SMALL_REDUCED else None)
    test = prepared.log.blocks["test"]
    assert score_block(learner, prepared.log, test) == result.after
    assert 0 <= result.seconds_history <= result.seconds and result.peak_bytes > 1e6


def test_a_cell_reports_each_score_in_its_column(prepared: Prepared) -> None:
    scores = [
        Scores(auc, auc + 1, {"click": TaskScore(auc + 2, auc + 3), "like": TaskScore(auc + 4, auc + 5)})
        for auc in (10.0, 20.0, 30.0)
    ]
    after, before, validation = scores
    result = CellResult(after, before, validation, [0.1], 3.0, 77, 1.5, 2.5, 99)
    assert result.flat() == {
        "auc": 10.0,
        "logloss": 11.0,
        "auc_before": 20.0,
        "logloss_before": 21.0,
        "auc_validation": 30.0,
        "logloss_validation": 31.0,
        "rows_trained": 77,
        "seconds_history": 1.5,
        "seconds": 2.5,
        "peak_bytes": 99,
        "epochs": [0.1],
        "rehearsal_weight": 3.0,
        "auc_click": 12.0,
        "logloss_click": 13.0,
        "auc_like": 14.0,
        "logloss_like": 15.0,
    }
    cold = result._replace(before=None).flat()
    assert cold["auc_before"] is None and cold["logloss_before"] is None


# A setting of the fit -> another value, and what of a cell it changes.
EVERY = {"epochs", "before", "after"}
FIT_CHOICES: dict[str, tuple[Any, set[str]]] = {
    "epochs": (1, EVERY),
    "patience": (1, EVERY),
    "batch_size": (8, EVERY),
    "learning_rate": (0.05, EVERY),
    "validation_rows": (20, EVERY),
    "rehearsal": (1.5, {"after"}),
    "rehearsal_weight": (1.0, {"after"}),
}


def test_every_setting_of_a_fit_is_in_the_table() -> None:
    assert FIT_CHOICES.keys() == FitConfig.model_fields.keys()


@pytest.mark.parametrize("key", FIT_CHOICES)
def test_a_setting_of_the_fit_changes_its_parts_and_no_other(prepared: Prepared, key: str) -> None:
    value, changes = FIT_CHOICES[key]
    usual = FIT.model_copy(update={"learning_rate": 0.1, "epochs": 8, "patience": 2})
    other = usual.model_copy(update={key: value})
    results = [cell(prepared, "diet", fit=fit)[1] for fit in (usual, other)]
    differing = {part for part in EVERY if len({str(getattr(result, part)) for result in results}) == 2}
    if key in ("patience", "validation_rows"):
        differing |= EVERY if "epochs" in differing else set()  # the best epoch may be the same
    assert differing == changes
    expected = replayed(prepared, "diet", CANDIDATE, 1, other)
    assert (results[1].after, results[1].before) == (expected.after, expected.before)
    assert results[1].epochs == expected.epochs
    # Where no row is reduced the fit plays no part.
    full = [cell(prepared, "warmup", fit=fit)[1].after for fit in (usual, other)]
    assert full[0] == full[1]


def test_without_rehearsal_no_weight_is_needed_and_none_reported(prepared: Prepared) -> None:
    fit = FIT.model_copy(update={"rehearsal": 0.0, "rehearsal_weight": "auto"})
    _, result = cell(prepared, "diet", fit=fit)
    expected = replayed(prepared, "diet", CANDIDATE, 1, fit.model_copy(update={"rehearsal_weight": 1.0}))
    assert result.after == expected.after and result.rehearsal_weight is None
    assert result.rows_trained == expected.rows_trained
    with pytest.raises(ConfigError, match="rehearsal_weight is auto"):
        cell(prepared, "diet", fit=FIT.model_copy(update={"rehearsal_weight": "auto"}))


@pytest.mark.parametrize("method", ["warmup", "newest", "random", "kmeans", "el2n", "diet"])
def test_a_method_with_tables_needs_a_checkpoint(prepared: Prepared, method: Any) -> None:
    setting = Setting(prepared.log, DIM, TRAINING, FIT)
    with pytest.raises(ConfigError, match=f"{method} needs a committed checkpoint"):
        run_cell(method, CANDIDATE, 0, setting, None, prepared.reduced)


def test_a_seed_gives_the_weights_and_the_order_of_a_cell(prepared: Prepared) -> None:
    results = [cell(prepared, "diet", seed=seed)[1] for seed in (1, 2)]
    for seed, result in zip((1, 2), results, strict=True):
        assert result.after == replayed(prepared, "diet", CANDIDATE, seed, FIT).after
    assert results[0].after != results[1].after


def test_a_cell_measures_its_own_peak_and_time(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = iter([10.0, 13.0, 20.0, 41.0]), list[str]()
    monkeypatch.setattr(cell_module, "reset_peak", lambda: order.append("reset"))
    monkeypatch.setattr(cell_module, "peak_bytes", lambda: 120 + len(order))
    monkeypatch.setattr(cell_module.time, "perf_counter", lambda: next(clock))
    _, result = cell(prepared, "full")
    assert order == ["reset"] and result.peak_bytes == 121
    assert (result.seconds_history, result.seconds) == (7.0, 31.0)


def test_each_rehearsal_weight_is_tried_on_the_validation_block(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = (CANDIDATE, CandidateConfig(name="finalnet", options={"hidden": (6,)}, head=HEAD))
    assert [judge.name for judge in JUDGES] == ["finalnet", "dcn"] and WEIGHTS == (1.0, 3.0)
    monkeypatch.setattr(weight_module, "JUDGES", judges)
    fit = FIT.model_copy(update={"rehearsal_weight": "auto"})
    setting = Setting(prepared.log, DIM, TRAINING, fit)
    scores = rehearsal_scores(prepared.reduced, prepared.checkpoint, setting)
    assert list(scores) == [1.0, 3.0]
    for weight, auc in scores.items():
        own = FIT.model_copy(update={"rehearsal_weight": weight})
        aucs = [replayed(prepared, "diet", judge, 0, own).validation.auc for judge in judges]
        assert auc == pytest.approx(np.mean(aucs), abs=1e-12)
    assert len(set(scores.values())) == 2


def test_a_probe_trains_eight_epochs_and_scores_the_block_it_is_given(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No epoch is chosen; the block is not learned."""
    log, reduced = prepared.log, prepared.reduced
    assert probe_module.PROBE.name == "dcn" and probe_module.EPOCHS == 8
    monkeypatch.setattr(probe_module, "PROBE", OWN_RATE)
    monkeypatch.setattr(probe_module, "ROWS", 100)
    scores = probe_memory(reduced, prepared.checkpoint, log, log.blocks["subsequent"], DIM, seed=5)
    of_test = probe_memory(reduced, prepared.checkpoint, log, log.blocks["test"], DIM, seed=5)
    for block, ours in (("subsequent", scores), ("test", of_test)):
        model = candidate_recommender(OWN_RATE, 5, log, DIM, TRAINING)
        restore_tables(model, prepared.checkpoint)
        fit = FitConfig(learning_rate=0.003)
        training = CandidateTraining(model.dense, reduced, reduced, fit, 5)
        for _ in range(8):
            training.train()
        row_N = np.arange(90)
        if block == "test":
            row_N = np.sort(numpy_generator(0, "probe", "test").choice(110, 100, replace=False))
        rows = joined(list(log.chunks(log.blocks[block]))).take(row_N)
        logit_NT = predict(model.dense, embed_rows(model, rows).emb_NFD).numpy()
        assert ours == score_tasks(logit_NT, rows.label_NT, ("click", "like"))
    usual = probe_memory(reduced, prepared.checkpoint, log, log.blocks["test"], DIM)
    assert usual == probe_memory(reduced, prepared.checkpoint, log, log.blocks["test"], DIM, seed=0)
    assert usual != of_test


def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances a second whenever it is read."""
    seconds = iter(range(10_000))
    monkeypatch.setattr(trajectory_module.time, "perf_counter", lambda: float(next(seconds)))


def test_full_training_is_scored_on_the_way(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 rows in batches of 32: 160 and 140 rows make 5 + 5 steps; four points: every second step."""
    monkeypatch.setattr(trajectory_module, "POINTS", 4)
    ticking(monkeypatch)
    log, steps, expected = prepared.log, 0, list[Point]()
    curve = full_trajectory(CANDIDATE, 1, Setting(log, DIM, TRAINING, FIT))
    model = candidate_recommender(CANDIDATE, 1, log, DIM, TRAINING)

    def note(rows: int) -> None:
        nonlocal steps
        steps += 1
        if steps % 2 == 0:
            score = score_rows(model.dense, validation_rows(model, log, 60))
            model.dense.train()
            # From the reading after the score before to the one at this step.
            expected.append(Point(steps, float(len(expected) + 1), score.auc))

    for name in ("0001", "0002"):
        learn_block(model, log, log.blocks[name], TRAINING, 1, note)
    assert curve == expected and [point.steps for point in curve] == [2, 4, 6, 8, 10]
    assert len({point.auc for point in curve}) > 1


def test_a_curve_has_thirty_points_or_one_of_every_step(prepared: Prepared) -> None:
    curve = full_trajectory(CANDIDATE, 1, Setting(prepared.log, DIM, TRAINING, FIT))
    assert [point.steps for point in curve] == list(range(1, 11))
    pairs = TRAINING.model_copy(update={"batch_size": 2})
    curve = full_trajectory(CANDIDATE, 1, Setting(prepared.log, DIM, pairs, FIT))
    assert [point.steps for point in curve] == list(range(5, 151, 5))  # thirty points


@pytest.mark.parametrize("patience", [1, 9])
def test_training_on_reduced_rows_is_scored_after_each_epoch(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    """47 rows in batches of 16: three steps."""
    ticking(monkeypatch)
    fit = FIT.model_copy(update={"patience": patience, "learning_rate": 0.1})
    setting = Setting(prepared.log, DIM, TRAINING, fit)
    curve = reduced_trajectory(CANDIDATE, 1, setting, prepared.checkpoint, prepared.reduced)
    epochs = replayed(prepared, "diet", CANDIDATE, 1, fit).epochs
    assert prepared.reduced.rows == 47
    assert curve == [Point(3 * n, float(n), auc) for n, auc in enumerate(epochs, start=1)]


def test_the_setting_hands_on_what_it_has(prepared: Prepared) -> None:
    setting = Setting(prepared.log, DIM, TRAINING, FIT)
    recommender = setting.recommender(OWN_RATE, 4)
    restore_tables(recommender, prepared.checkpoint)
    training = setting.candidate_training(recommender, OWN_RATE, prepared.reduced, 6)
    assert training.config.learning_rate == 0.003 and training.config.epochs == FIT.epochs
    assert training.model is recommender.dense and training.validation.rows == 60
    assert training.optimiser.param_groups[0]["lr"] == 0.003
    assert training.reduced.rows == 47
    plain: Callable[..., EpochScore] = training.epoch
    assert 0 < plain().auc < 1
    assert torch.equal(training.reduced.label_NT, prepared.reduced.label_NT)

"""Learning from real and reduced rows against plain torch: one dense table, explicit Adam, explicit batches.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.config import CandidateConfig, FitConfig, TrainingConfig
from diet_ray.errors import DataError
from diet_ray.log.batches import joined
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.seeding import derived_seed, numpy_generator, torch_generator
from diet_ray.training.candidate import CandidateTraining, EpochScore, score_rows
from diet_ray.training.candidate_setup import candidate_recommender, new_candidate, validation_rows
from diet_ray.training.embedding import embed_rows, sample_rows, score_block
from diet_ray.training.learning import learn_block, new_recommender
from diet_ray.training.metrics import score_tasks
from diet_ray.training.recommender import Recommender
from diet_ray.training.rehearsal import Rehearsal
from tests.distinct_blocks import HEAD, TABLE_ROWS, write_distinct_blocks

ROWS, DIM, TASKS = (40, 7, 4), 3, 2
DCN = ModelConfig(options={"hidden": (6,)}, head=HEAD)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PreparedLog:
    return write_distinct_blocks(tmp_path_factory.mktemp("learning"))


def dense(seed: int = 0, dim: int = DIM) -> RankingModel:
    return build_model(DCN, fields=3, dim=dim, tasks=TASKS, seed=seed)


class PlainRecommender:
    """One table per field as a dense parameter; rows outside of a batch are put back after each step."""

    def __init__(self, model: RankingModel, tables: Sequence[Tensor], rate: float, dense_rate: float) -> None:
        self.model = model
        self.tables = [table.detach().clone().requires_grad_() for table in tables]
        self.mean = [torch.zeros_like(table) for table in tables]
        self.square = [torch.zeros_like(table) for table in tables]
        self.optimiser = torch.optim.Adam(model.parameters(), lr=dense_rate)
        self.rate, self.steps = rate, 0

    def step(
        self, id_NF: Tensor, label_NT: Tensor, clip: float, rehearsed: Examples | None, weight: float
    ) -> float:
        """Mean of the batch plus `weight` x mean of the rehearsed rows, over 1 + weight."""
        self.model.train()
        emb_NFD = torch.stack([table[id_NF[:, f]] for f, table in enumerate(self.tables)], 1)
        parts = [(emb_NFD, label_NT.float(), 1.0)]
        if rehearsed is not None:
            parts.append((rehearsed.emb_NFD, rehearsed.label_NT, weight))
        means = [share * binary_cross_entropy_with_logits(self.model(e), y) for e, y, share in parts]
        loss = torch.stack(means).sum() / sum(share for _, _, share in parts)
        weights = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, weights + self.tables)
        norm = torch.cat([g.flatten() for g in gradients]).norm().item()
        scaled = [g * min(1.0, clip / norm) for g in gradients]
        for parameter, gradient in zip(weights, scaled, strict=False):
            parameter.grad = gradient
        self.optimiser.step()
        self._move_tables(id_NF, scaled[len(weights) :])
        return loss.item()

    def _move_tables(self, id_NF: Tensor, gradients: list[Tensor]) -> None:
        self.steps += 1
        root = (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        for field, gradient in enumerate(gradients):
            for row in set(id_NF[:, field].tolist()):
                mean, square = self.mean[field], self.square[field]
                mean[row] = 0.9 * mean[row] + 0.1 * gradient[row]
                square[row] = 0.999 * square[row] + 0.001 * gradient[row] ** 2
                move = self.rate * root * mean[row] / (square[row].sqrt() + 1e-8)
                self.tables[field].data[row] -= move


def batch(seed: int, rows: int = 12) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    id_NF = torch.stack([torch.randint(min(count, 9), (rows,), generator=draw) for count in ROWS], 1)
    return id_NF, (id_NF[:, :2] % 2 == 1).float()


@pytest.mark.parametrize("clip", [0.05, 10.0])
@pytest.mark.parametrize("dense_rate", [None, 0.003])
@pytest.mark.parametrize(("rehearsed", "weight"), [(0, 1.0), (5, 1.0), (20, 3.0)])
def test_steps_are_those_of_a_dense_recommender(
    clip: float, dense_rate: float | None, rehearsed: int, weight: float
) -> None:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        learner = Recommender(dense(), 3, DIM, learning_rate=0.01, dense_rate=dense_rate, clip_norm=clip)
        learner.grow(ROWS, torch.Generator().manual_seed(1))
        for table in learner.tables.weights():
            table.data *= 5000  # Adam magnifies the rounding of gradients near 0
        plain = PlainRecommender(dense(), learner.tables.weights(), 0.01, dense_rate or 0.01)
        draw = torch.Generator().manual_seed(2)
        for seed in range(4):
            extra = None
            if rehearsed:
                emb_NFD = torch.randn(rehearsed, 3, DIM, generator=draw)
                extra = Examples(emb_NFD, torch.rand(rehearsed, TASKS, generator=draw))
            loss = learner.step(*batch(seed), extra, weight)
            assert loss == pytest.approx(plain.step(*batch(seed), clip, extra, weight), rel=1e-6)
        for ours, theirs in zip(learner.tables.weights(), plain.tables, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        for ours, theirs in zip(learner.dense.parameters(), plain.model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    finally:
        torch.set_default_dtype(previous)


def test_the_loss_of_a_step_counts_rehearsed_rows_by_their_weight() -> None:
    learner = Recommender(dense(), 3, DIM)
    learner.grow(ROWS, torch.Generator().manual_seed(1))
    id_NF, label_NT = batch(0)
    rows = Examples(torch.randn(5, 3, DIM), torch.rand(5, TASKS))
    of_batch = learner.dense.loss(learner.tables(id_NF), label_NT).item()
    of_rows = learner.dense.loss(rows.emb_NFD, rows.label_NT).item()
    assert learner.step(id_NF, label_NT, rows, 3.0) == pytest.approx((of_batch + 3 * of_rows) / 4, rel=1e-5)


def test_new_rows_of_a_table_are_small_normal_draws_in_order_of_the_fields() -> None:
    learner = Recommender(dense(), 3, DIM)
    learner.grow((6, 2, 3), torch.Generator().manual_seed(1))
    learner.grow((9, 2, 4), torch.Generator().manual_seed(2))
    first, second = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    for field, (before, added) in enumerate(((6, 3), (2, 0), (3, 1))):
        draws = [torch.randn(before, DIM, generator=first), torch.randn(added, DIM, generator=second)]
        assert torch.equal(learner.tables.weights()[field].detach(), 1e-4 * torch.cat(draws))
    assert [table.num_embeddings for table in learner.tables.tables] == [9, 2, 4]
    with pytest.raises(DataError, match="table 0 has 9 rows, cannot shrink to 8"):
        learner.grow((8, 2, 4), torch.Generator())


def test_the_rates_and_the_clip_of_a_training_reach_the_recommender(log: PreparedLog) -> None:
    training = TrainingConfig(learning_rate=0.02, clip_norm=0.5)
    for own, expected in ((None, 0.02), (0.007, 0.007)):
        learner = new_recommender(dense(), log, DIM, training, own)
        assert learner.table_optimiser.param_groups[0]["lr"] == 0.02
        assert learner.dense_optimiser.param_groups[0]["lr"] == expected
        assert learner.clip_norm == 0.5 and len(learner.tables.weights()) == 3
        assert {weight.shape[1] for weight in learner.tables.weights()} == {DIM}
    usual = Recommender(dense(), 3, DIM)
    assert usual.clip_norm == 10.0 and usual.dense_optimiser.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("shuffle_rows", [1, 70])
@pytest.mark.parametrize("rehearsal", [None, 0.5, 0.01])
def test_a_block_is_learned_batch_by_batch(
    log: PreparedLog, shuffle_rows: int, rehearsal: float | None
) -> None:
    training = TrainingConfig(batch_size=50, learning_rate=0.01, shuffle_rows=shuffle_rows)
    block, done = log.blocks["0002"], list[int]()
    learner, plain = (new_recommender(dense(), log, DIM, training) for _ in range(2))
    drawn = torch.Generator().manual_seed(3)
    memory = Examples(torch.randn(9, 3, DIM, generator=drawn), torch.rand(9, TASKS, generator=drawn))
    mixed = Rehearsal(memory, share=rehearsal, weight=3.0, seed=4) if rehearsal else None
    loss = learn_block(learner, log, block, training, 6, done.append, rehearsal=mixed)
    plain.grow(TABLE_ROWS["0002"], torch_generator(6, "grow", "0002"))
    rows, draw = joined(list(log.chunks(block))), numpy_generator(6, "shuffle", "0002")
    order = np.arange(140)
    if shuffle_rows > 1:
        order = np.concatenate([order[:70][draw.permutation(70)], order[70:][draw.permutation(70)]])
    picks, total = torch_generator(4, "rehearsal"), 0.0
    for first in (0, 50, 100):
        of_batch = rows.take(order[first : first + 50])
        count = round((rehearsal or 0) * of_batch.rows)
        extra = memory.take(torch.randint(9, (count,), generator=picks)) if count else None
        label_NT = torch.tensor(of_batch.label_NT).float()
        step = plain.step(torch.tensor(of_batch.id_NF).long(), label_NT, extra, 3.0)
        total += step * of_batch.rows
    assert loss == pytest.approx(total / 140, rel=1e-12) and done == [50, 50, 40]
    assert mixed is None or mixed.rows_drawn == {0.5: 70, 0.01: 0}[mixed.share]
    for ours, theirs in zip(learner.tables.weights(), plain.tables.weights(), strict=True):
        assert torch.equal(ours, theirs)
    for one, other in zip(learner.dense.parameters(), plain.dense.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["dcn", "finalnet"])
@pytest.mark.parametrize(("rows", "size"), [(96, 32), (97, 32), (1, 32), (5, 1)])
def test_a_candidate_is_trained_as_by_a_plain_loop(name: str, rows: int, size: int) -> None:
    """A single row that is left over is not learned; batches of one row, or a single one, are."""
    config = CandidateConfig(name=name, options={"hidden": (6,)} if name == "dcn" else {}, head=HEAD)
    fit = FitConfig(epochs=3, batch_size=size, learning_rate=0.01, patience=9)
    reduced, validation = drawn_rows(rows, 1), drawn_rows(60, 2, hard=True)
    ours, plain = (new_candidate(config, 3, fields=3, dim=DIM, tasks=TASKS) for _ in range(2))
    training = CandidateTraining(ours, reduced, validation, fit, seed=5)
    optimiser = torch.optim.Adam(plain.parameters(), lr=0.01)
    draw = torch_generator(5, "candidate", "batches")
    for _ in range(3):
        order = torch.randperm(rows, generator=draw)
        for first in range(0, rows, size):
            row_B = order[first : first + size]
            if (rows, first) == (97, 96):
                continue
            plain.train(len(row_B) > 1)
            optimiser.zero_grad()
            logit_NT = plain(reduced.emb_NFD[row_B])
            binary_cross_entropy_with_logits(logit_NT, reduced.label_NT[row_B]).backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 10.0)
            optimiser.step()
        plain.eval()
        with torch.no_grad():
            logit_NT = plain(validation.emb_NFD)
        scores = score_tasks(logit_NT.numpy(), validation.label_NT.numpy(), ["0", "1"])
        assert training.epoch() == pytest.approx((scores.auc, scores.logloss), rel=1e-6)
    for one, other in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def drawn_rows(count: int, seed: int, *, hard: bool = False) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    emb_NFD = torch.randn(count, 3, DIM, generator=draw)
    score_NT = emb_NFD.sum(2)[:, :TASKS]
    return Examples(emb_NFD, (score_NT > 0).float() if hard else score_NT.sigmoid())


def test_large_gradients_of_a_candidate_are_clipped() -> None:
    rows = drawn_rows(32, 1)
    rows = Examples(100 * rows.emb_NFD, rows.label_NT)
    model = dense()
    training = CandidateTraining(model, rows, rows, FitConfig(batch_size=32), seed=0)
    training.train()
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(10.0, rel=1e-4)


def scripted(aucs: list[float], **fit: Any) -> CandidateTraining:
    """A training of which each epoch scores the next of `aucs` and leaves its number in the weights."""
    model, rows = dense(), drawn_rows(4, 0)
    training = CandidateTraining(model, rows, rows, FitConfig(**fit), seed=0)

    def epoch() -> EpochScore:
        number = len(training.scores)
        for weight in model.parameters():
            weight.data.fill_(number)
        training.scores.append(EpochScore(aucs[number], 0.5))
        if training.best == number:
            training.best_weights = {n: part.clone() for n, part in model.state_dict().items()}
        return training.scores[-1]

    training.epoch = epoch  # type: ignore[method-assign]
    return training


@pytest.mark.parametrize(
    ("aucs", "epochs", "patience", "done", "best"),
    [
        ([0.5, 0.6, 0.7, 0.8], 4, 2, 4, 3),
        ([0.5, 0.6, 0.7, 0.8], 3, 2, 3, 2),
        ([0.8, 0.7, 0.6, 0.9], 4, 2, 3, 0),
        ([0.8, 0.7, 0.6, 0.9], 4, 3, 4, 3),
        ([0.8, 0.8, 0.7, 0.6], 4, 1, 2, 0),
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 6, 2, 5, 2),
    ],
)
def test_patience_counts_the_epochs_since_the_best(
    aucs: list[float], epochs: int, patience: int, done: int, best: int
) -> None:
    training = scripted(aucs, epochs=epochs, patience=patience)
    training.run()
    assert (len(training.scores), training.best) == (done, best)
    assert {weight.flatten()[0].item() for weight in training.model.parameters()} == {float(best)}


def test_the_weights_of_the_best_epoch_are_kept_as_they_were() -> None:
    training = CandidateTraining(dense(), drawn_rows(40, 1), drawn_rows(30, 2, hard=True), FitConfig(), 0)
    training.scores = [EpochScore(2.0, 0.0)]  # better than any
    training.best_weights = {}
    training.score()
    assert training.best_weights == {} and len(training.scores) == 2
    training.scores = []
    score = training.score()
    kept = {name: part.clone() for name, part in training.best_weights.items()}
    assert score == training.scores[0] == score_rows(training.model, training.validation)
    training.train()
    assert all(torch.equal(part, kept[name]) for name, part in training.best_weights.items())
    assert not all(torch.equal(p, kept[name]) for name, p in training.model.state_dict().items())


def test_a_restored_training_has_the_moments_and_the_draws_of_the_saved_one() -> None:
    def fresh() -> CandidateTraining:
        return CandidateTraining(dense(), drawn_rows(40, 1), drawn_rows(30, 2, hard=True), FitConfig(), 7)

    saved, restored = fresh(), fresh()
    saved.epoch(), saved.epoch()
    restored.restore(saved.save())
    assert restored.scores == saved.scores
    for ours, theirs in zip(saved.model.parameters(), restored.model.parameters(), strict=True):
        one, other = saved.optimiser.state[ours], restored.optimiser.state[theirs]
        assert set(one) == set(other) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(one[moment], other[moment]) for moment in one)
    assert torch.equal(saved.draw.get_state(), restored.draw.get_state())
    for name, part in saved.best_weights.items():
        assert torch.equal(part, restored.best_weights[name])


def test_a_candidate_has_the_weights_of_its_name_and_seed(log: PreparedLog) -> None:
    candidate = CandidateConfig(name="dcn", options={"hidden": (6,)}, head=HEAD, learning_rate=0.004)
    own = new_candidate(candidate, 3, fields=3, dim=DIM, tasks=TASKS)
    seed = derived_seed(3, "candidate", "dcn")
    expected = build_model(candidate, fields=3, dim=DIM, tasks=TASKS, seed=seed)
    whole = candidate_recommender(candidate, 3, log, DIM, TrainingConfig(learning_rate=0.02))
    for ours in (own, whole.dense):
        for one, other in zip(ours.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)
    assert whole.dense_optimiser.param_groups[0]["lr"] == 0.004
    assert whole.table_optimiser.param_groups[0]["lr"] == 0.02 and whole.tables.rows == (0, 0, 0)


def grown(log: PreparedLog) -> Recommender:
    learner = new_recommender(dense(), log, DIM, TrainingConfig())
    learner.grow((12, 9, 5), torch.Generator().manual_seed(0))
    for weight in learner.tables.weights():
        weight.data *= 1000
    return learner


def slow_rows(learner: Recommender, log: PreparedLog, block: Block, row_N: Any) -> Examples:
    """Embeddings by hand; an id beyond its table is row 0."""
    rows = joined(list(log.chunks(block))).take(row_N)
    tables = learner.tables.weights()
    emb = [
        torch.stack([t[i] if i < len(t) else t[0] for i, t in zip(ids, tables, strict=True)])
        for ids in rows.id_NF.tolist()
    ]
    return Examples(torch.stack(emb).detach(), torch.tensor(rows.label_NT).float())


def test_validation_rows_are_a_fixed_sample_of_the_validation_block(log: PreparedLog) -> None:
    learner, block = grown(log), log.blocks["validation"]
    row_N = np.sort(numpy_generator(0, "validation").choice(130, 40, replace=False))
    sample, expected = validation_rows(learner, log, 40), slow_rows(learner, log, block, row_N)
    assert torch.equal(sample.emb_NFD, expected.emb_NFD) and torch.equal(sample.label_NT, expected.label_NT)
    every = validation_rows(learner, log, 130)
    assert torch.equal(every.emb_NFD, slow_rows(learner, log, block, np.arange(130)).emb_NFD)


def test_a_sample_has_the_rows_that_are_drawn(log: PreparedLog) -> None:
    block = log.blocks["0002"]
    rows = joined(list(log.chunks(block)))
    for count in (1, 139, 140, 500):
        sample = sample_rows(log, block, count, np.random.default_rng(3))
        row_N = np.sort(np.random.default_rng(3).choice(140, min(count, 140), replace=False))
        assert np.array_equal(sample.id_NF, rows.id_NF[row_N])
        assert np.array_equal(sample.label_NT, rows.label_NT[row_N])


def test_a_block_is_scored_whole_and_by_name_of_the_task(log: PreparedLog) -> None:
    learner = grown(log)
    for name in ("0002", "validation", "test"):
        block = log.blocks[name]
        rows = slow_rows(learner, log, block, np.arange(block.rows))
        learner.dense.eval()
        with torch.no_grad():
            logit_NT = learner.dense(rows.emb_NFD)
        expected = score_tasks(logit_NT.numpy(), rows.label_NT.numpy(), ["click", "like"])
        scores = score_block(learner, log, block)
        # Rows that all but tie change places by rounding.
        assert scores.auc == pytest.approx(expected.auc, abs=1e-3) and list(scores.tasks) == ["click", "like"]
        assert scores.logloss == pytest.approx(expected.logloss)
    embedded = embed_rows(learner, joined(list(log.chunks(log.blocks["0002"]))))
    assert not embedded.emb_NFD.requires_grad


@pytest.mark.parametrize(("share", "rows", "expected"), [(0.5, 5, 2), (0.5, 7, 4), (0.0, 50, 0), (2.0, 3, 6)])
def test_rehearsed_rows_are_drawn_with_replacement(share: float, rows: int, expected: int) -> None:
    memory = drawn_rows(3, 0)
    rehearsal = Rehearsal(memory, share=share, weight=2.0, seed=9)
    generator = torch_generator(9, "rehearsal")
    for time in (1, 2):
        drawn = rehearsal.draw(rows)
        assert rehearsal.rows_drawn == time * expected
        if not expected:
            assert drawn is None
            continue
        row_N = torch.randint(3, (expected,), generator=generator)
        assert drawn is not None and torch.equal(drawn.emb_NFD, memory.emb_NFD[row_N])

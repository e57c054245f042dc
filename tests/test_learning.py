"""Real rows through a recommender."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from diet_ray.config import TrainingConfig
from diet_ray.errors import DataError
from diet_ray.log.batches import EncodedRows, joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples, predict
from diet_ray.training.embedding import embed_rows, sample_rows, score_block
from diet_ray.training.learning import learn_block, new_recommender
from diet_ray.training.rehearsal import Rehearsal
from tests.test_selection import TRAINING, learner


def weights(log: PreparedLog, seed: int) -> torch.Tensor:
    model = learner(log)
    learn_block(model, log, log.history[0], TRAINING, seed)
    return torch.cat([p.detach().flatten() for p in [*model.dense.parameters(), *model.tables.weights()]])


def test_an_epoch_is_a_function_of_its_seed(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    assert torch.equal(weights(log, 0), weights(log, 0))
    assert not torch.equal(weights(log, 0), weights(log, 1))


def test_what_is_rehearsed_is_not_forgotten(drift_log: str) -> None:
    """Rows that contradict the block are still predicted after it where they are rehearsed."""
    log = PreparedLog.open(drift_log)
    draw = torch.Generator().manual_seed(0)
    memory = Examples(torch.randn(50, len(log.fields), 8, generator=draw), torch.ones(50, len(log.tasks)))
    found = {}
    for share in (0.0, 0.5):
        model, rehearsal = learner(log), Rehearsal(memory, share=share, weight=1.0, seed=0)
        learn_block(model, log, log.history[0], TRAINING, 0, rehearsal=rehearsal)
        found[share] = predict(model.dense, memory.emb_NFD).sigmoid().mean().item()
        assert bool(rehearsal.rows_drawn) == bool(share)
    assert found[0.5] > 0.9 > found[0.0] + 0.2


def test_learning_reports_every_row_and_lowers_the_loss(drift_log: str) -> None:
    log, seen = PreparedLog.open(drift_log), []
    model, block = learner(log), log.history[0]
    first = learn_block(model, log, block, TRAINING, 0, seen.append)
    assert sum(seen) == block.rows
    assert learn_block(model, log, block, TRAINING, 1) < first


def test_an_id_without_a_row_in_the_tables_is_out_of_vocabulary(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    model = learner(log)
    learn_block(model, log, log.history[0], TRAINING, 0)
    known = np.array(model.tables.rows)
    ids = np.stack([known - 1, known, np.zeros_like(known)]).astype(np.int32)
    emb = embed_rows(model, EncodedRows(ids, np.zeros((3, len(log.tasks)), np.uint8))).emb_NFD
    assert torch.equal(emb[1], emb[2])
    assert not torch.equal(emb[0], emb[2])


def test_evaluation_agrees_with_scikit_learn(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    model, test = learner(log), log.blocks["test"]
    learn_block(model, log, log.history[0], TRAINING, 0)
    found = score_block(model, log, test)
    rows = joined(list(log.chunks(test)))
    chance_NT = predict(model.dense, embed_rows(model, rows).emb_NFD).double().sigmoid().numpy()
    for t, task in enumerate(log.tasks):
        assert found.tasks[task].auc == pytest.approx(roc_auc_score(rows.label_NT[:, t], chance_NT[:, t]))
        assert found.tasks[task].logloss == pytest.approx(log_loss(rows.label_NT[:, t], chance_NT[:, t]))


def test_a_sample_is_distinct_rows_in_block_order(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    block = log.history[1]
    whole, some = joined(list(log.chunks(block))), sample_rows(log, block, 100, np.random.default_rng(0))
    in_order = iter(whole.id_NF.tolist())
    assert some.rows == 100
    assert all(ids in in_order for ids in some.id_NF.tolist())  # a subsequence: each found after the last
    assert sample_rows(log, block, 10**6, np.random.default_rng(0)).rows == block.rows


def test_a_diverging_epoch_is_an_error(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    model = new_recommender(learner(log).dense, log, 8, TrainingConfig(batch_size=128, learning_rate=1e30))
    with pytest.raises(DataError, match="lower the learning rate"):
        learn_block(model, log, log.history[0], TRAINING, 0)

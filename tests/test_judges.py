"""Judges of a search: rows are scored before they are learned, tables are as said, pairs are compared."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from diet_ray.config import CandidateConfig, TrainingConfig
from diet_ray.errors import ConfigError, RunError
from diet_ray.evaluation.before_learned import Progress, learn_and_score, trains_as_it_scores
from diet_ray.evaluation.judges.certainty import Noise, certainty, seed_deviation, usual_agreement
from diet_ray.evaluation.judges.paired import auc_influence, drawn_groups, paired_score
from diet_ray.evaluation.judges.prequential import JUDGES, JudgeConfig, JudgeSetting, Judging
from diet_ray.evaluation.judges.record import JudgeRecord, judged_to_the_end
from diet_ray.evaluation.judges.stream import judged_blocks, kept_ids, stream_rows
from diet_ray.evaluation.judges.tables import mixed_tables
from diet_ray.evaluation.judges.trial import JudgedTrial
from diet_ray.evaluation.trial import TrialData
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples, predict
from diet_ray.seeding import torch_generator
from diet_ray.storage import Folder
from diet_ray.training.candidate_setup import candidate_recommender, new_candidate
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.embedding import embed_rows
from diet_ray.training.learning import learn_block
from diet_ray.training.metrics import roc_auc
from tests.stored_checkpoint import stored
from tests.tiny_run import FIT

DIM = 8
TRAINING = TrainingConfig(batch_size=128)
FINALNET = CandidateConfig(name="finalnet", options={"hidden": [8]}, learning_rate=0.01)


@pytest.fixture(scope="module")
def log(drift_log: str) -> PreparedLog:
    return PreparedLog.open(drift_log)


@pytest.fixture(scope="module")
def setting(log: PreparedLog) -> JudgeSetting:
    reference = candidate_recommender(CandidateConfig(name="finalnet"), 0, log, DIM, TRAINING)
    for block in log.history:
        learn_block(reference, log, block, TRAINING, 0)
    return JudgeSetting(log, DIM, TRAINING, stored(reference))


@pytest.mark.parametrize("name", ["finalnet", "dcn"])
def test_a_row_is_scored_before_it_is_learned(log: PreparedLog, name: str) -> None:
    """As a slow loop has it, which predicts a batch, then learns it; FinalNet has batch norms, DCN none."""
    block, candidate = log.history[0], FINALNET.model_copy(update={"name": name})
    fast = candidate_recommender(candidate, 0, log, DIM, TRAINING)
    assert trains_as_it_scores(fast.dense) == (name == "dcn")
    progress = learn_and_score(fast, log, block, TRAINING, 0)
    slow = candidate_recommender(candidate, 0, log, DIM, TRAINING)
    slow.grow(block.table_rows, torch_generator(0, "grow", block.name))
    rows, logits = joined(list(log.chunks(block))), []
    for start in range(0, rows.rows, TRAINING.batch_size):
        batch = rows.take(slice(start, start + TRAINING.batch_size))
        logits.append(predict(slow.dense, embed_rows(slow, batch).emb_NFD))
        slow.step(torch.as_tensor(batch.id_NF).long(), torch.as_tensor(batch.label_NT))
    assert progress.logit_NT == pytest.approx(torch.cat(logits).numpy(), abs=1e-6)
    assert (progress.label_NT == rows.label_NT).all()


@pytest.mark.parametrize("judge", ["cold", "mixed", "warm"])
def test_in_pieces_is_as_in_one(setting: JudgeSetting, judge: str) -> None:
    def all_rows(pieces: int) -> Progress:
        config = JUDGES[judge].model_copy(update={"pieces": pieces, "scored": 1.0})
        return Judging(judge, config, setting, FINALNET, 0).run()

    whole, cut = all_rows(1), all_rows(4)
    assert whole.rows == setting.log.blocks["subsequent"].rows
    assert (whole.logit_NT == cut.logit_NT).all() and (whole.label_NT == cut.label_NT).all()


def test_the_early_judge_is_a_full_training_that_is_stopped(setting: JudgeSetting) -> None:
    judging = Judging("early", JUDGES["early"], setting, FINALNET, 0)
    block = setting.log.history[0]
    judging.run()
    full = candidate_recommender(FINALNET, 0, setting.log, DIM, TRAINING, joined=True)
    full.grow(block.table_rows, torch_generator(0, "grow", "judge"))
    progress = learn_and_score(full, setting.log, block, TRAINING, 0)
    assert (Progress.joined(judging.done).logit_NT == progress.logit_NT).all()


def test_half_is_the_first_half_of_cold(setting: JudgeSetting) -> None:
    half, cold = (Judging(name, JUDGES[name], setting, FINALNET, 0) for name in ("half", "cold"))
    half.run()
    cold.run()
    batch = TRAINING.batch_size
    rows = -(-cold.rows // 2 // batch) * batch  # whole batches
    assert half.rows == rows and half.pieces == 4
    first = Progress.joined(cold.done).logit_NT[:rows]
    assert (Progress.joined(half.done).logit_NT == first).all()


def test_the_last_rows_count(setting: JudgeSetting) -> None:
    judging = Judging("cold", JudgeConfig(pieces=4, scored=0.25), setting, FINALNET, 0)
    rows = setting.log.blocks["subsequent"].rows
    scored = judging.run()
    assert scored.rows == round(rows / 4)
    assert (scored.label_NT == Progress.joined(judging.done).label_NT[-scored.rows :]).all()


def test_mixed_tables_lie_between_the_reference_and_fresh_ones(setting: JudgeSetting) -> None:
    def tables(share: float, seed: int = 0) -> list[torch.Tensor]:
        candidate = candidate_recommender(FINALNET, 0, setting.log, DIM, TRAINING)
        assert setting.checkpoint
        mixed_tables(candidate, setting.checkpoint, share, seed)
        assert all(weight not in candidate.table_optimiser.state for weight in candidate.tables.weights())
        return [weight.detach() for weight in candidate.tables.weights()]

    fresh, reference = tables(0.0), tables(1.0)
    for low, middle, high in zip(fresh, tables(0.25), reference, strict=True):
        assert torch.allclose(middle, 0.75 * low + 0.25 * high)
    assert fresh[0].std() < 2e-4 < reference[0].std()
    assert not torch.equal(fresh[0], tables(0.0, seed=1)[0])
    with pytest.raises(ValueError, match=r"not within \[0, 1\]"):
        tables(1.5)


def test_a_judge_that_needs_the_reference_says_so(setting: JudgeSetting) -> None:
    with pytest.raises(RunError, match="judge mixed needs a committed checkpoint"):
        Judging("mixed", JUDGES["mixed"], setting._replace(checkpoint=None), FINALNET, 0)
    shuffled = setting._replace(training=TrainingConfig(shuffle_rows=64))
    with pytest.raises(ConfigError, match="shuffle_rows must be 1"):
        Judging("cold", JUDGES["cold"], shuffled, FINALNET, 0)


def test_a_thinned_stream_has_all_rows_of_some_ids(log: PreparedLog) -> None:
    blocks = judged_blocks(log, 1000)
    assert [block.name for block in blocks] == [*(b.name for b in log.history), "subsequent"]
    assert judged_blocks(log, 0) == [log.blocks["subsequent"]]
    field = log.fields[0]
    whole = joined(list(stream_rows(log, blocks, 1, field)))
    thin = joined(list(stream_rows(log, blocks, 4, field)))
    chosen = np.isin(whole.id_NF[:, 0], np.unique(thin.id_NF[:, 0]))
    assert (whole.id_NF[chosen] == thin.id_NF).all() and (whole.label_NT[chosen] == thin.label_NT).all()
    assert 0.15 < kept_ids(np.arange(10_000, dtype=np.int32), 4).mean() < 0.35
    with pytest.raises(ConfigError, match="no field 'nobody'"):
        list(stream_rows(log, blocks, 2, "nobody"))


def rows(count: int = 3000, lift: float = 0.7) -> Progress:
    draw = np.random.default_rng(3)
    label_NT = (draw.random((count, 2)) < 0.3).astype(np.uint8)
    return Progress((lift * label_NT + draw.normal(size=label_NT.shape)).astype(np.float32), label_NT)


def test_influence_is_the_change_of_the_auc_without_a_row() -> None:
    progress = rows(400)
    score_N, label_N = progress.logit_NT[:, 0], progress.label_NT[:, 0]
    influence_N, whole = auc_influence(score_N, label_N), roc_auc(score_N, label_N)
    assert influence_N.sum() == pytest.approx(0, abs=1e-12)
    for left_out in (0, 57, 311):
        others = np.arange(400) != left_out
        change = whole - roc_auc(score_N[others], label_N[others])
        assert change == pytest.approx(influence_N[left_out], abs=3e-5)


def test_drawing_groups_is_as_drawing_their_rows() -> None:
    progress, groups = rows(), 50
    score = paired_score(progress, groups)
    assert score.drawn(np.ones((1, groups))) == pytest.approx(score.auc)
    count_BG = drawn_groups(40, groups, np.random.default_rng(0))
    of_group = np.arange(progress.rows) * groups // progress.rows
    for count_G, estimated in zip(count_BG, score.drawn(count_BG), strict=True):
        drawn = np.repeat(np.arange(progress.rows), count_G[of_group].astype(int))
        exact = np.mean([roc_auc(progress.logit_NT[drawn, t], progress.label_NT[drawn, t]) for t in (0, 1)])
        assert estimated == pytest.approx(exact, abs=1.5e-3)


def record(auc: float, seed: int = 0, judge: str = "cold", noise: float = 0.0) -> JudgeRecord:
    influence = noise * np.random.default_rng(round(auc * 1e6)).normal(size=20)
    return JudgeRecord(judge=judge, seed=seed, auc=(auc,), logloss=(0.5,), influence=tuple(influence))


def test_certainty_follows_scores_rows_and_noise() -> None:
    draw, quiet = np.random.default_rng(0), Noise(0, 0)
    sure = certainty([[record(0.70)], [record(0.75)], [record(0.7495)]], quiet, draw)
    assert sure.winner == 1 and list(sure.near_C) == [0, 1, 1] and sure.rivals == []
    by_rows = certainty([[record(0.74, noise=1e-3)], [record(0.741, noise=1e-3)]], quiet, draw)
    assert by_rows.winner == 1 and by_rows.rivals == [0] and 0.5 < by_rows.near_C[1] < 1
    by_seed = certainty([[record(0.74)], [record(0.75)]], Noise(seed=0.02, agreement=0.0), draw)
    assert by_seed.rivals == [0]
    # Several judges count by their weights.
    two = [[record(0.7), record(0.6, judge="mixed")], [record(0.69), record(0.62, judge="mixed")]]
    assert certainty(two, quiet, draw).winner == 1
    assert certainty(two, quiet, draw, {"cold": 3.0, "mixed": 1.0}).winner == 0


def test_the_usual_agreement_is_that_of_its_tau() -> None:
    draw = np.random.default_rng(0)
    score_C = draw.normal(size=3000)
    truth_C = score_C + usual_agreement(score_C, 0.6) * draw.normal(size=3000)
    assert kendalltau(truth_C, score_C).statistic == pytest.approx(0.6, abs=0.02)


def test_the_deviation_between_seeds_is_pooled_over_candidates() -> None:
    judged_twice = [[record(0.70, 0), record(0.72, 1)], [record(0.6, 0), record(0.6, 1)], [record(0.9)]]
    assert seed_deviation(judged_twice, {}) == pytest.approx(np.sqrt(2 * 0.01**2 / 2))
    assert np.isnan(seed_deviation([[record(0.7)]], {}))


def build(candidate: CandidateConfig, seed: int) -> RankingModel:
    return new_candidate(candidate, seed, fields=17, dim=DIM, tasks=3)


def memory() -> TrialData:
    draw = torch.Generator().manual_seed(1)
    emb_NFD = torch.randn(100, 17, DIM, generator=draw)
    label_NT = (emb_NFD[:, :3, 0] > 0).float()
    return TrialData(Examples(emb_NFD, label_NT), Examples(emb_NFD, label_NT))


def trial(folder: Folder, setting: JudgeSetting, candidate: CandidateConfig = FINALNET) -> JudgedTrial:
    judges = {name: JUDGES[name].model_copy(update={"pieces": 3}) for name in ("cold", "mixed")}
    started = TrialRecord(number=0, candidate=candidate)
    return JudgedTrial(started, memory(), FIT, build, 1, folder, judges, 1, setting)


def scores(record: TrialRecord) -> list[JudgeRecord]:
    return [own.model_copy(update={"seconds": 0.0}) for own in record.judged]


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_killed_trial_ends_as_an_undisturbed_one(tmp_path: Path, setting: JudgeSetting, steps: int) -> None:
    whole = trial(Folder.at(str(tmp_path / "whole")), setting)
    heard = []
    while not whole.finished:
        heard.append(whole.epoch())
    assert len(heard) == 4 and whole.record.epochs == 1 and whole.record.pieces == 3
    assert heard[0] == whole.record.best_until(1)
    assert heard[3].auc == pytest.approx(np.mean([own.auc[2] for own in whole.record.judged]))
    folder = Folder.at(str(tmp_path / "killed"))
    killed = trial(folder, setting)
    for _ in range(steps):
        killed.epoch()
    again = trial(folder, setting)
    assert [again.epoch() for _ in heard] == heard and again.finished
    assert scores(again.record) == scores(whole.record)


def test_a_failure_before_a_judge_is_recorded(tmp_path: Path, setting: JudgeSetting) -> None:
    whole, damaged = setting.checkpoint, Folder.at(str(tmp_path / "damaged"))
    assert whole
    for path in whole.folder.fs.find(whole.folder.root):
        name = f"reference/{path.partition('/reference/')[2]}"
        damaged.write(name, b"not a table" if "/rows-" in name else whole.folder.read(name))
    failing = trial(
        Folder.at(str(tmp_path / "trials")), setting._replace(checkpoint=StoredCheckpoint(damaged, 1))
    )
    failing.epoch()
    with pytest.raises(RunError, match="damaged"):
        failing.epoch()
    assert failing.record.state == "failed" and "damaged" in failing.record.reason


def test_a_record_has_a_score_per_piece(setting: JudgeSetting) -> None:
    judging = Judging("users", JUDGES["users"], setting, FINALNET, 0)
    found = judged_to_the_end(judging, 0)
    assert found.pieces == judging.pieces and found.rows == judging.rows
    assert found.score.auc == found.auc[-1] and found.score.influence_G.sum() == pytest.approx(0, abs=1e-4)

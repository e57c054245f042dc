"""A batch of one row has no variance: models with batch norms learn from it all the same."""

import torch

from diet_ray.config import FitConfig, TrainingConfig
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.base import RankingModel
from diet_ray.models.ensemble import Ensemble
from diet_ray.models.examples import Examples
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.learning import learn_block
from diet_ray.training.recommender import Recommender
from tests.test_recommender import ROWS, batch

HIDDEN = {"hidden": (8, 8)}


def dense(name: str, fields: int = 3, dim: int = 4, tasks: int = 2) -> RankingModel:
    return build_model(ModelConfig(name=name, options=HIDDEN), fields=fields, dim=dim, tasks=tasks, seed=0)


def recommender() -> Recommender:
    """An ensemble, one member of which has batch norms."""
    built = Recommender(Ensemble([dense("finalnet"), dense("dcn")]), 3, 4, learning_rate=1e-2)
    built.grow(ROWS, torch.Generator().manual_seed(0))
    return built


def test_a_step_on_one_row_moves_weights_and_leaves_the_running_statistics() -> None:
    learner = recommender()
    learner.step(*batch(rows=8))
    before = {name: tensor.clone() for name, tensor in learner.dense.state_dict().items()}
    learner.step(*batch(rows=1, seed=2))
    after = learner.dense.state_dict()
    for name in before:
        moved = not torch.equal(before[name], after[name])
        if "running" in name or "num_batches" in name:
            assert not moved, name
    for member in ("models.0", "models.1"):
        assert not torch.equal(
            before[f"{member}.head.towers.0.1.weight"], after[f"{member}.head.towers.0.1.weight"]
        )
    learner.step(*batch(rows=2))
    count = "models.0.backbone.plain_block.1.num_batches_tracked"
    assert learner.dense.state_dict()[count] == before[count] + 1


def test_one_row_and_rehearsed_rows_are_an_ordinary_batch() -> None:
    learner = recommender()
    count = "models.0.backbone.plain_block.1.num_batches_tracked"
    rehearsed = Examples(torch.randn(1, 3, 4), torch.rand(1, 2))
    learner.step(*batch(rows=1), rehearsed)
    assert learner.dense.state_dict()[count] == 1


def test_a_block_whose_last_batch_has_one_row_is_learned_whole(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    block, fields, tasks = log.history[0], len(log.fields), len(log.tasks)
    learner = Recommender(dense("finalnet", fields=fields, dim=8, tasks=tasks), fields, 8)
    learned: list[int] = []
    learn_block(learner, log, block, TrainingConfig(batch_size=block.rows - 1), 0, learned.append)
    assert learned == [block.rows - 1, 1]


def test_a_candidate_can_be_trained_on_a_memory_of_one_row() -> None:
    one = Examples(torch.randn(1, 3, 4), torch.rand(1, 2))
    validation = Examples(torch.randn(20, 3, 4), torch.randint(2, (20, 2)).float())
    training = CandidateTraining(dense("finalnet"), one, validation, FitConfig(epochs=1), seed=0)
    training.run()
    assert len(training.scores) == 1 and training.optimiser.state

"""A candidate trained on reduced data in embedding space."""

import pytest
import torch

from diet_ray.config import FitConfig
from diet_ray.errors import RunError
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples, predict
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.metrics import score_tasks

FIELDS, DIM, TASKS = 4, 8, 2


def model(name: str = "finalnet") -> RankingModel:
    return build_model(ModelConfig(name=name), fields=FIELDS, dim=DIM, tasks=TASKS, seed=0)


def rows(count: int, seed: int, *, flipped: bool = False) -> Examples:
    """Soft labels by a linear teacher; `flipped`, by the opposite one."""
    draw = torch.Generator().manual_seed(seed)
    emb_NFD = torch.randn(count, FIELDS, DIM, generator=draw)
    plane = torch.randn(FIELDS * DIM, TASKS, generator=torch.Generator().manual_seed(99)) / 2
    logit_NT = emb_NFD.flatten(1) @ (-plane if flipped else plane)
    return Examples(emb_NFD, logit_NT.sigmoid())


def hard(examples: Examples) -> Examples:
    return examples._replace(label_NT=(examples.label_NT > 0.5).float())


def auc(trained: RankingModel, validation: Examples) -> float:
    logits = predict(trained, validation.emb_NFD).numpy()
    return score_tasks(logits, validation.label_NT.numpy(), ["a", "b"]).auc


def fit(trained: RankingModel, reduced: Examples, config: FitConfig) -> list[float]:
    found = CandidateTraining(trained, reduced, hard(rows(500, 2)), config, seed=0)
    found.run()
    scores = [score.auc for score in found.scores]
    assert scores[found.best] == max(scores)
    return scores


def test_soft_labels_alone_teach_a_candidate() -> None:
    trained = model()
    scores = fit(trained, rows(2000, 1), FitConfig(batch_size=64, epochs=4))
    assert max(scores) > 0.9


def test_the_model_is_left_at_its_best_epoch() -> None:
    trained = model()
    scores = fit(trained, rows(300, 1), FitConfig(batch_size=64, epochs=6, patience=6))
    assert abs(auc(trained, hard(rows(500, 2))) - max(scores)) < 1e-9


def test_training_stops_when_validation_no_longer_rises() -> None:
    # The wrong teacher: each epoch makes validation worse, so the first one stays the best.
    scores = fit(model(), rows(2000, 1, flipped=True), FitConfig(batch_size=64, epochs=8, patience=2))
    assert len(scores) == 3 and scores[0] == max(scores)


def test_a_last_batch_of_one_row_is_no_trouble_for_batch_norm() -> None:
    fit(model(), rows(65, 1), FitConfig(batch_size=64, epochs=1))


@pytest.mark.parametrize("name", ["finalnet", "dcn"])  # with and without a batch norm
def test_a_fitting_saved_after_an_epoch_goes_on_as_if_nothing_had_happened(name: str) -> None:
    def fresh() -> CandidateTraining:
        config = FitConfig(batch_size=64, epochs=4, patience=4)
        return CandidateTraining(model(name), rows(300, 1), hard(rows(200, 2)), config, seed=3)

    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(2):
        first.epoch()
    second.restore(first.save())
    second.run()
    whole.run()
    assert second.scores == whole.scores and second.best == whole.best
    for mine, other in zip(
        whole.model.state_dict().values(), second.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, other)


def test_a_damaged_state_and_one_of_another_model_are_refused() -> None:
    def fresh(name: str) -> CandidateTraining:
        return CandidateTraining(
            model(name), rows(100, 1), hard(rows(100, 2)), FitConfig(batch_size=64), seed=0
        )

    saved = fresh("finalnet")
    saved.epoch()
    content = saved.save()
    for broken, into in ((content[:-50], "finalnet"), (b"", "finalnet"), (content, "dcn")):
        with pytest.raises(RunError, match="damaged or of another model"):
            fresh(into).restore(broken)

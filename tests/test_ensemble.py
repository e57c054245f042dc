"""Several models over the same embeddings: each is trained by its own loss, their mean is the teacher."""

import pytest
import torch

from diet_ray.config import ReferenceConfig, RunConfig
from diet_ray.distillation.memory_update import new_reference
from diet_ray.errors import ConfigError
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.ensemble import Ensemble
from diet_ray.models.registry import ModelConfig, build_model

FIELDS, DIM, TASKS = 3, 4, 2
SMALL = ModelConfig(options={"hidden": (16, 8)})


def ensemble(*seeds: int) -> Ensemble:
    return Ensemble([build_model(SMALL, fields=FIELDS, dim=DIM, tasks=TASKS, seed=seed) for seed in seeds])


def test_its_logits_are_the_mean_of_its_members() -> None:
    emb_NFD, both = torch.randn(10, FIELDS, DIM), ensemble(0, 1).eval()
    first, second = (member(emb_NFD) for member in both.members())
    assert not torch.allclose(first, second)
    torch.testing.assert_close(both(emb_NFD), (first + second) / 2)


def test_a_member_learns_as_if_it_were_alone() -> None:
    """Up to the factor of the mean, which Adam does not see."""
    emb_NFD, label_NT = torch.randn(10, FIELDS, DIM), torch.rand(10, TASKS)
    both, alone = ensemble(0, 1), ensemble(0)
    both.loss(emb_NFD, label_NT).backward()
    alone.loss(emb_NFD, label_NT).backward()
    member = both.members()[0]
    for of_both, single in zip(member.parameters(), alone.parameters(), strict=True):
        assert of_both.grad is not None and single.grad is not None
        torch.testing.assert_close(2 * of_both.grad, single.grad)


def test_members_of_the_same_name_share_its_options_and_start_apart(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    own = ReferenceConfig(name="dcn", options={"hidden": [16, 8]}, ensemble=("dcn", "finalnet"))
    assert [member.name for member in own.members()] == ["dcn", "dcn", "finalnet"]
    first, second, third = new_reference(log, RunConfig(reference=own, dim=8), "reference").members()
    sizes = [[p.shape for p in model.parameters()] for model in (first, second, third)]
    assert sizes[0] == sizes[1] != sizes[2]
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_an_unknown_member_or_option_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown model 'dcm'"):
        ReferenceConfig(ensemble=("dcm",))
    with pytest.raises(ConfigError, match="dcn has no option 'hiden'"):
        ReferenceConfig(options={"hiden": [8]})

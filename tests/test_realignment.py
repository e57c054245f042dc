"""Old memory rows follow the tables; what is fitted is exact where the move is affine."""

import pytest
import torch

from diet_ray.distillation.memory import Memory
from diet_ray.distillation.realignment import affine_maps, realign
from diet_ray.models.registry import ModelConfig, build_model
from tests.test_memory import memory
from tests.tiny_network import DIM, FIELDS, TASKS

ROWS = 300


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 30  # as embeddings are


def moved(emb_NFD: torch.Tensor) -> torch.Tensor:
    """Every field by a map of its own, and a shift that is large beside the embeddings."""
    matrix_FDD = torch.eye(DIM) + 10 * drawn(FIELDS, DIM, DIM, seed=1)
    return torch.einsum("nfd,fde->nfe", emb_NFD, matrix_FDD) + 10 * drawn(FIELDS, DIM, seed=2)


def old_memory() -> Memory:
    found = memory(40, seed=1)
    return found._replace(emb_NFD=drawn(40, FIELDS, DIM, seed=3), logit_NT=found.logit_NT.float())


def dense(seed: int) -> torch.nn.Module:
    config = ModelConfig(options={"hidden": (16, 8)})
    return build_model(config, fields=FIELDS, dim=DIM, tasks=TASKS, seed=seed).eval()


def test_an_affine_move_is_followed() -> None:
    seen, old = drawn(ROWS, FIELDS, DIM), old_memory()
    same = dense(0)
    found = realign(old, affine_maps(seen, moved(seen)), same, same)
    torch.testing.assert_close(found.emb_NFD, moved(old.emb_NFD), atol=2e-4, rtol=1e-2)
    assert (found.emb_NFD - old.emb_NFD).abs().max() > 0.1


def test_logits_move_as_the_teacher_does() -> None:
    old, still = old_memory(), drawn(ROWS, FIELDS, DIM)
    previous, reference = dense(0), dense(1)
    found = realign(old, affine_maps(still, still), previous, reference)
    torch.testing.assert_close(found.emb_NFD, old.emb_NFD)
    with torch.no_grad():
        expected = old.logit_NT + reference(old.emb_NFD) - previous(old.emb_NFD)
    torch.testing.assert_close(found.logit_NT, expected)


@pytest.mark.parametrize("rows", [1, 5])
def test_few_rows_shift_the_memory_and_no_more(rows: int) -> None:
    """Fewer rows than unknowns, all alike: what they do not tell stays as it was."""
    seen = drawn(1, FIELDS, DIM).expand(rows, -1, -1)
    found = realign(old_memory(), affine_maps(seen, seen + 1), dense(0), dense(0))
    torch.testing.assert_close(found.emb_NFD, old_memory().emb_NFD + 1, atol=1e-3, rtol=0)


def test_a_field_of_zeros_stays_finite() -> None:
    nothing = torch.zeros(ROWS, FIELDS, DIM)
    found = realign(old_memory(), affine_maps(nothing, nothing), dense(0), dense(0))
    torch.testing.assert_close(found.emb_NFD, old_memory().emb_NFD)

"""The candidates whose ranking is studied: draws of the joint space, and weak ones."""

from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from diet_ray.config import CandidateConfig
from diet_ray.model_config import HeadConfig
from diet_ray.models.examples import predict
from diet_ray.models.registry import build_model
from diet_ray.seeding import numpy_generator
from tune_spaces.space import load_space, sample

NARROW_RATES = (5e-4, 2e-3)  # learning rates within a factor of four: the order is of architectures
LARGEST = 500_000  # multiply-adds of a row in the dense part
ROWS, ATTEMPTS = 64, 50
DRAWN, RANKED_EACH = 32, 4  # candidates of the joint space; the first of each architecture that are ranked
NARROW: dict[str, dict[str, Any]] = {
    "dcn": {"cross_layers": 1, "hidden": (4,)},
    "dcnv2": {"cross_layers": 1, "low_rank": True, "rank": 2, "hidden": (4,)},
    "finalnet": {"hidden": (4,)},
    "finalmlp": {"hidden1": (4,), "hidden2": (4,), "gate_hidden": (4,)},
    "wukong": {"layers": 1, "half": 4, "projection": 4, "interaction_hidden": (4,), "hidden": (4,)},
}


def ranked_candidates() -> dict[str, CandidateConfig]:
    """The first candidates of each architecture that `diet-ray search --space joint --samples 32` draws."""
    spaces = load_space("joint")
    candidates: dict[str, CandidateConfig] = {}
    for number in range(DRAWN):
        candidate = sample(spaces, numpy_generator(0, "search", number))
        if sum(other.name == candidate.name for other in candidates.values()) < RANKED_EACH:
            candidates[f"joint{number:02d}"] = candidate
    return candidates


def weak_candidates() -> dict[str, CandidateConfig]:
    """One candidate of each architecture that is weak by design."""
    head = HeadConfig(experts=1, expert_hidden=(4,), tower_hidden=())
    return {
        f"weak-{name}": CandidateConfig(name=name, options=options, head=head, learning_rate=1e-4)
        for name, options in NARROW.items()
    }


def narrow_candidates(each: int) -> dict[str, CandidateConfig]:
    """`each` draws of every architecture of the joint space, in turn: the first of all, the second of all ...

    A prefix is balanced, so that a study that was cut short stands by itself. A draw above LARGEST, or of the
    same network as an earlier one, is drawn again; the learning rate is log-uniform in NARROW_RATES.
    """
    candidates: dict[str, CandidateConfig] = {}
    for number in range(each):
        for space in load_space("joint"):
            known = [other.model_dump(exclude={"learning_rate"}) for other in candidates.values()]
            for attempt in range(ATTEMPTS):
                draw = numpy_generator(0, "narrow", space.model, number, attempt)
                rate = float(np.exp(draw.uniform(*np.log(NARROW_RATES))))
                drawn = sample((space,), draw).model_copy(update={"learning_rate": rate})
                known_before = drawn.model_dump(exclude={"learning_rate"}) in known
                if not known_before and multiply_adds(drawn) <= LARGEST:
                    break
            candidates[f"{space.model}-{number:02d}"] = drawn
    return candidates


def multiply_adds(candidate: CandidateConfig, fields: int = 12, dim: int = 32, tasks: int = 3) -> int:
    """Multiply-adds of one row in the forward pass of the dense part."""
    model = build_model(candidate, fields=fields, dim=dim, tasks=tasks, seed=0)
    with FlopCounterMode(display=False) as counter:
        predict(model, torch.zeros(ROWS, fields, dim))
    return int(counter.get_total_flops()) // (2 * ROWS)

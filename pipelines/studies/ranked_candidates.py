"""The candidates of the ranking study: draws of the joint space, and weak ones."""

from typing import Any

from diet_ray.config import CandidateConfig
from diet_ray.model_config import HeadConfig
from diet_ray.seeding import numpy_generator
from tune_spaces.space import load_space, sample

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

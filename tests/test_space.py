"""Search spaces: the built-in ones yield models, a user's own is loaded, mistakes are named."""

import sys
from pathlib import Path

import optuna
import pytest
from ray import tune
from ray.tune.search.sample import Domain

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.evaluation.cell import new_candidate
from diet_ray.seeding import numpy_generator
from tune_spaces.optuna_space import OptunaSpace
from tune_spaces.space import BUILT_IN, Space, load_space, sample


def build(candidate: CandidateConfig) -> None:
    new_candidate(candidate, 0, fields=3, dim=4, tasks=2)


@pytest.mark.parametrize("name", BUILT_IN)
def test_candidates_of_a_built_in_space_can_be_built_and_differ(name: str) -> None:
    spaces = load_space(name)
    drawn = [sample(spaces, numpy_generator(0, name, number)) for number in range(12)]
    for candidate in drawn:
        build(candidate)
    assert len({candidate.model_dump_json() for candidate in drawn}) > 6


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_choice_of_a_built_in_space_can_be_built(name: str) -> None:
    for space in load_space(name):
        values = space.parameters()
        first = {key: v.sample() if isinstance(v, Domain) else v for key, v in values.items()}
        for key, domain in values.items():
            for choice in getattr(domain, "categories", []):
                build(space.candidate({**first, key: choice}))


def test_the_joint_space_draws_all_five_architectures() -> None:
    spaces = load_space("joint")
    drawn = {sample(spaces, numpy_generator(0, number)).name for number in range(60)}
    assert drawn == {"dcn", "dcnv2", "finalnet", "finalmlp", "wukong"}


def test_a_candidate_is_a_function_of_the_draw() -> None:
    spaces = load_space("joint")
    first, again, other = (sample(spaces, numpy_generator(0, n)) for n in (1, 1, 2))
    assert first == again and first != other


def test_a_space_in_the_working_directory_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    Path("space_of_mine.py").write_text(
        "from tune_spaces.space import Space\nSPACE = Space(model='tests.own_backbone:Wide')\n"
    )
    (space,) = load_space("space_of_mine")
    assert sample((space,), numpy_generator(0)).name == "tests.own_backbone:Wide"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("SPACE = Space(model='dcn', options={'hiden': 3})", "dcn has no option 'hiden'; its options: cross"),
        ("SPACE = Space(model='dnc')", "unknown model 'dnc'"),
        ("SPACE = Space(model='dcn', head={'expert': 3})", "head.expert"),
        ("SPACE = 3", "has no SPACE that is a Space"),
        ("SPACE = ()", "has no SPACE that is a Space"),
    ],
)
def test_a_mistake_in_a_space_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: str, message: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"wrong_{abs(hash(space))}"
    (tmp_path / f"{name}.py").write_text(f"from tune_spaces.space import Space\n{space}\n")
    with pytest.raises(ConfigError, match=message):
        load_space(name)


@pytest.mark.parametrize("name", BUILT_IN)
def test_optuna_draws_candidates_of_the_space_and_repeats_known_ones(name: str) -> None:
    space = OptunaSpace(load_space(name), lambda number, candidate, drawn: {"it": (number, candidate, drawn)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    first = [space(study.ask())["it"] for _ in range(4)]
    assert [number for number, _, _ in first] == [0, 1, 2, 3]
    for _, candidate, _ in first:
        build(candidate)
    again = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=9))
    for _, _, drawn in first:
        again.enqueue_trial(drawn)
    assert [space(again.ask())["it"][1] for _ in first] == [candidate for _, candidate, _ in first]


def test_a_domain_optuna_does_not_know_is_named() -> None:
    odd = Space(model="dcn", options={"cross_layers": tune.sample_from(lambda spec: 1)})
    with pytest.raises(ConfigError, match=r"optuna cannot draw options\.cross_layers"):
        OptunaSpace((odd,), lambda number, candidate, drawn: {})

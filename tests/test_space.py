"""Search spaces: the built-in ones yield models, a user's own is loaded, mistakes are named."""

import sys
from pathlib import Path

import optuna
import pytest
from ray import tune
from ray.tune.search.sample import Domain

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.seeding import numpy_generator
from diet_ray.training.candidate_setup import new_candidate
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
        ("SPACE = [Space(model='dcn')]", "has no SPACE that is a Space"),
        ("SPACE = (Space(model='dcn'), 3)", "has no SPACE that is a Space"),
        ("", "has no SPACE that is a Space"),
        (
            "SPACE = Space(model='my_net_of_nowhere:Net')",
            "'my_net_of_nowhere:Net' cannot be imported: there is",
        ),
        (
            "from ray import tun",
            r"as a module it cannot be imported: ImportError: cannot import name 'tun'.*line 2",
        ),
        (
            "import not_installed_anywhere",
            "cannot be imported: ModuleNotFoundError: No module named 'not_inst",
        ),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("SPACE = (", "cannot be imported: SyntaxError"),
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


@pytest.mark.parametrize("name", ["jiont", "my-space", "./my_space.py", "a:b", ""])
def test_what_is_no_space_is_named_with_the_spaces_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^no search space '{name}': it is none of joint, dcn, dcnv2"):
        load_space(name)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (Space(model="dcn", head={"experts": 0}), "experts: Input should be greater than 0"),
        (Space(model="dcn", learning_rate=-1.0), "learning_rate: Input should be greater than 0"),
    ],
)
def test_an_impossible_value_of_a_space_is_named(space: Space, says: str) -> None:
    with pytest.raises(ConfigError, match=f"a candidate of space dcn is not valid:\n  {says}"):
        sample((space,), numpy_generator(0))


def test_a_candidate_has_the_values_drawn_and_the_constants() -> None:
    space = Space(
        model="dcn",
        options={"cross_layers": tune.randint(2, 5), "hidden": (8,)},
        head={"experts": tune.choice([2, 3]), "tower_hidden": (4,)},
        learning_rate=tune.loguniform(1e-3, 1e-2),
    )
    assert list(space.parameters()) == [
        "options.cross_layers",
        "options.hidden",
        "head.experts",
        "head.tower_hidden",
        "learning_rate",
    ]
    drawn = [sample((space,), numpy_generator(0, number)) for number in range(20)]
    assert {candidate.options["cross_layers"] for candidate in drawn} == {2, 3, 4}
    assert {candidate.head.experts for candidate in drawn} == {2, 3}
    assert all(1e-3 <= candidate.learning_rate <= 1e-2 for candidate in drawn if candidate.learning_rate)
    assert len({candidate.learning_rate for candidate in drawn}) == 20
    for candidate in drawn:
        assert candidate.options["hidden"] == (8,) and candidate.head.tower_hidden == (4,)


def test_optuna_draws_each_domain_within_its_bounds() -> None:
    """The bounds of Ray Tune: an upper integer bound is exclusive, a quantised one a multiple of its step."""
    space = Space(
        model="dcn",
        options={"cross_layers": tune.randint(2, 5), "hidden": tune.choice([(8,), (4, 2)])},
        head={"experts": tune.qrandint(2, 6, 2)},
        learning_rate=tune.loguniform(1e-4, 1e-1),
    )
    draw = OptunaSpace((space,), lambda number, candidate, drawn: {"it": (candidate, drawn)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    candidates = [draw(study.ask())["it"][0] for _ in range(60)]
    assert {candidate.options["cross_layers"] for candidate in candidates} == {2, 3, 4}
    assert {tuple(candidate.options["hidden"]) for candidate in candidates} == {(8,), (4, 2)}
    assert {candidate.head.experts for candidate in candidates} == {2, 4, 6}
    rates = sorted(candidate.learning_rate for candidate in candidates if candidate.learning_rate)
    assert rates[0] >= 1e-4 and rates[-1] <= 1e-1
    assert rates[20] < 5e-3 and rates[40] < 3e-2  # a third of the draws in each decade
    (only,) = {frozenset(draw(study.ask())["it"][1]) for _ in range(3)}
    assert only == {"0.options.cross_layers", "0.options.hidden", "0.head.experts", "0.learning_rate"}

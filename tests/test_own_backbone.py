"""A backbone of the user's own is used as it is, or refused in words that name it and what is wrong."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diet_ray
from diet_ray.config import ReferenceConfig, RunConfig
from diet_ray.errors import ConfigError
from diet_ray.models.backbone import Backbone, build_backbone
from diet_ray.models.derivatives import check_reference_model
from diet_ray.models.registry import ARCHITECTURES, ModelConfig, build_model, check_options
from diet_ray.models.user_code import import_named, own_modules
from tests.own_backbone import Counting, Frozen, Normed

SOUND = ("Wide", "Frozen", "Unused", "Shared", "Tied", "Normed")


def build(name: str, options: dict[str, Any] | None = None) -> nn.Module:
    config = ModelConfig(name=f"tests.{name}", options=options or {})
    return build_model(config, fields=3, dim=4, tasks=2, seed=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Wide", {"outputs": 5}),
        ("AnyOptions", {"depth": 2, "anything": "else"}),
        ("OtherNames", {"dim": 6}),
        ("Frozen", {}),
        ("Unused", {}),
        ("Shared", {}),
        ("Tied", {}),
        ("Normed", {}),
    ],
)
def test_a_sound_backbone_is_built_with_its_options(name: str, options: dict[str, Any]) -> None:
    built = build(f"own_backbone:{name}", options)
    assert isinstance(built.backbone, Backbone) and built.training
    assert built(torch.randn(6, 3, 4)).shape == (6, 2)


def test_options_reach_the_constructor() -> None:
    assert build("own_backbone:AnyOptions", {"depth": 2}).backbone.options == {"depth": 2}
    assert build("own_backbone:Wide", {"outputs": 5}).backbone.out_features == 5
    assert build("own_backbone:OtherNames", {"dim": 6}).backbone.out_features == 6


def test_a_frozen_layer_keeps_its_weights_and_other_layers_start_as_everywhere() -> None:
    built = build("own_backbone:Frozen").backbone
    assert torch.equal(built.first.weight, torch.eye(12)) and (built.first.bias == 0.5).all()
    assert not built.second.bias.any() and built.second.weight.requires_grad


def test_trying_a_backbone_leaves_its_statistics_and_the_random_state_alone() -> None:
    """Dropout draws and batch norms count on the rows that a backbone is tried on."""
    torch.manual_seed(0)
    expected, after = Normed(3, 4).state_dict(), torch.get_rng_state()
    torch.manual_seed(0)
    tried = build_backbone("normed", Normed, {}, fields=3, dim=4)
    assert torch.equal(torch.get_rng_state(), after) and tried.training
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tried.state_dict().items())
    assert all(parameter.grad is None for parameter in tried.parameters())
    assert vars(tried).keys() == vars(Normed(3, 4)).keys()
    counting = build_backbone("counting", Counting, {}, fields=3, dim=4)
    assert counting.get_buffer("replaced") == counting.get_buffer("changed") == 0


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("PlainClass", {}, "must be a class of nn.Module"),
        ("INSTANCE", {}, "is an instance of Wide: name its class"),
        ("NUMBER", {}, "is a int, not a class of nn.Module"),
        ("gives_a_function", {}, "must be an nn.Module, but it is a function"),
        ("NoArguments", {}, "too many positional arguments"),
        ("NeedsDepth", {}, "missing a required argument: 'depth'"),
        ("Asserts", {}, "3 fields of dim 4: AssertionError: dim must be a multiple of 3.*faulty.*line"),
        ("Raises", {"error": "RuntimeError"}, "RuntimeError'}: RuntimeError: of the user"),
        ("Raises", {"error": "KeyError"}, "KeyError: 'of the user'"),
        ("Raises", {"error": "OSError"}, "OSError: of the user"),
        ("ForgetsSuper", {}, r"AttributeError: cannot assign module before Module\.__init__\(\) call"),
        ("NoOutFeatures", {}, "lacks the attribute out_features, a positive int: the length"),
        ("OutFeatures", {"value": 8.0}, r"out_features, a positive int.*; it is the float 8\.0"),
        ("OutFeatures", {"value": True}, "it is the bool True"),
        ("OutFeatures", {"value": "8"}, "it is the str '8'"),
        ("OutFeatures", {"value": None}, "it is the NoneType None"),
        ("OutFeatures", {"value": 0}, "it is the int 0"),
        ("OutFeatures", {"value": -8}, "it is the int -8"),
        ("OutFeaturesLayer", {}, "it is the Linear$"),
        ("NoForward", {}, "forward fails in evaluation mode.*NotImplementedError"),
        (
            "Returns",
            {"kind": "tuple"},
            r"forward returns a tuple in evaluation mode, expected a tensor \(2, 8\)",
        ),
        ("Returns", {"kind": "dict"}, "forward returns a dict in evaluation mode"),
        ("Returns", {"kind": "list"}, "forward returns a list in evaluation mode"),
        ("Returns", {"kind": "none"}, "forward returns a NoneType in evaluation mode"),
        ("Returns", {"kind": "tuple", "only_in_training": True}, "forward returns a tuple in training mode"),
        ("WrongOutFeatures", {}, r"maps \(2, 3, 4\) to \(2, 8\), expected \(2, 9\)"),
        (
            "WrongInput",
            {},
            r"forward fails in evaluation mode on embeddings \(2, 3, 4\): Runtime.*own_backbone\.py",
        ),
        ("Misspells", {}, "AttributeError: 'Misspells' object has no attribute 'liner'.*line"),
        ("DoublePrecision", {}, r"returns torch\.float64, expected torch\.float32"),
        ("WholeNumbers", {}, r"returns torch\.int64, expected torch\.float32"),
        ("NotFinite", {}, "returns NaN or infinite values in evaluation mode"),
        ("NotFinite", {"only_in_training": True}, "returns NaN or infinite values in training mode"),
        ("PartlyNotFinite", {}, "returns NaN or infinite values in evaluation mode"),
        ("DependsOnBatch", {"share": 0.0025}, "gives a row other outputs in a batch than alone"),
        ("DependsOnBatch", {"share": 0.0025, "largest": 0.001}, "gives a row other outputs in a batch"),
        ("Squeezes", {}, r"maps \(1, 3, 4\) to \(8,\), expected \(1, 8\)"),
        ("MixesRows", {}, "gives a row other outputs in a batch than alone"),
        ("AlwaysDrops", {}, "gives a row other outputs in a batch than alone"),
        ("Detaches", {}, "gives the embeddings no gradient"),
        ("NoGradient", {}, "gives the embeddings no gradient"),
        ("Overwrites", {}, "cannot be differentiated: RuntimeError: .*inplace operation"),
    ],
)
def test_a_faulty_backbone_is_named_with_its_fault(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(
        ConfigError, match=f"model tests.own_faulty_backbone:{name} .*{says}|.*{name}: .*{says}"
    ):
        build(f"own_faulty_backbone:{name}", options)


@pytest.mark.parametrize("largest", [0.001, 1000.0])
def test_outputs_may_differ_by_rounding(largest: float) -> None:
    """By one in a thousand of the output and as much of the largest one."""
    build("own_faulty_backbone:DependsOnBatch", {"share": 0.0015, "largest": largest})


def test_running_out_of_memory_is_no_fault_of_the_class() -> None:
    def exploding(fields: int, dim: int) -> nn.Module:
        raise MemoryError

    class Large(Frozen):
        def forward(self, emb_NFD: Tensor) -> Tensor:
            raise MemoryError

    for architecture in (exploding, Large):
        with pytest.raises(MemoryError):
            build_backbone("too_large", architecture, {}, fields=3, dim=4)
    build("own_backbone:Exploding")


def test_the_output_of_the_wrong_shape_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"WrongShape maps \(2, 3, 4\) to \(2, 3, 4\), expected \(2, 8\)"):
        build("own_backbone:WrongShape")


def test_options_are_checked_before_anything_is_built() -> None:
    assert check_options("dcn", ["hidden"]) is ARCHITECTURES["dcn"]
    assert check_options("tests.own_backbone:Frozen", []) is Frozen
    with pytest.raises(ConfigError, match=r"Wide has no option 'hidden'; its options: outputs$"):
        check_options("tests.own_backbone:Wide", ["outputs", "hidden"])
    with pytest.raises(ConfigError, match=r"Frozen has no option 'depth'; its options: none$"):
        ReferenceConfig(name="tests.own_backbone:Frozen", options={"depth": 2})
    with pytest.raises(
        ConfigError, match=r"AnyOptions cannot be called as Class.*multiple values for argument 'dim'"
    ):
        check_options("tests.own_backbone:AnyOptions", ["dim"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", ".")])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


NET = "from tests.own_backbone import Wide\n\n\nclass Net(Wide):\n    pass\n"


def test_a_module_of_the_working_directory_is_imported(folder: Path) -> None:
    (folder / "net_of_mine.py").write_text(NET)
    (folder / "mine").mkdir()
    (folder / "mine" / "nets.py").write_text(NET + "\n\nclass Outer:\n    Inner = Net\n")
    assert check_options("net_of_mine:Net", []).__module__ == "net_of_mine"
    assert check_options("mine.nets:Net", []).__module__ == "mine.nets"
    assert import_named("mine.nets:Outer.Inner", "model") is check_options("mine.nets:Net", [])


def test_the_working_directory_comes_before_the_packages_as_in_workers(folder: Path) -> None:
    (folder / "antigravity.py").write_text(NET)
    assert check_options("antigravity:Net", []).__module__ == "antigravity"
    assert sys.path.count(str(folder)) == 1 and sys.path[0] == str(folder)
    check_options("antigravity:Net", [])
    assert sys.path.count(str(folder)) == 1


def test_installed_modules_are_found_where_the_working_directory_is_gone(folder: Path) -> None:
    (folder / "gone").mkdir()
    os.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert check_options("tests.own_backbone:Frozen", []) is Frozen


def test_a_class_in_a_file_is_named_by_its_path(folder: Path) -> None:
    (folder / "nets").mkdir()
    (folder / "nets" / "net_r.py").write_text(NET + "import net_s\n")
    (folder / "nets" / "net_s.py").write_text("")
    for path in ("nets/net_r.py:Net", str(folder / "nets" / "net_r.py:Net"), "gone/net_r.py:Net"):
        assert check_options(path, []) is sys.modules["net_r"].Net


def test_what_workers_need_is_the_users_own_and_what_it_imports_from_beside_it(folder: Path) -> None:
    (folder / "net_t.py").write_text(NET + "import net_u\n")
    (folder / "net_u").mkdir()
    (folder / "net_u" / "__init__.py").write_text("from net_u import part\n")
    (folder / "net_u" / "part.py").write_text("")
    (folder / "net_v.py").write_text("")  # imported by nobody
    check_options("net_t:Net", [])
    check_options("dcn", [])
    here = [path for path in own_modules() if path.startswith(str(folder))]
    assert here == [str(folder / "net_t.py"), str(folder / "net_u")]


@pytest.mark.parametrize(
    ("path", "source", "says"),
    [
        ("net_a", None, "use one of dcn, dcnv2, .* package.module:Class, or file.py:Class"),
        ("net_b:Net", None, "there is no module 'net_b' in the working directory or among the installed"),
        ("net_c.part:Net", NET, "there is no module 'net_c.part'"),
        ("net_d:Nut", NET, r"module net_d \(.*net_d\.py\) has no attribute 'Nut'"),
        ("net_e:", NET, "'net_e:' is not of the form package.module:Name"),
        (":Net", NET, "':Net' is not of the form"),
        ("net-f:Net", NET, "'net-f:Net' is not of the form"),
        ("nets/net-g.py:Net", NET, "is not of the form package.module:Name or file.py:Name"),
        ("net_h:Net:x", NET, "is not of the form"),
        ("nets/net_i.py:Net", None, "there is no module 'net_i'"),
        ("json.py:Net", NET, r"json.__init__\.py is another module json; rename the file"),
        ("net_j:Net", "import not_installed_anywhere\n", "No module named 'not_installed_anywhere'.*line 1"),
        ("net_k:Net", "import net_k_more.part\n", r"No module named 'net_k_more'.*net_k\.py, line 1"),
        (
            "net_l:Net",
            "from torch import Tensr\n",
            r"ImportError: cannot import name 'Tensr'.*net_l\.py, line 1",
        ),
        ("net_m:Net", "def Net(:\n", r"SyntaxError: .*net_m\.py, line 1"),
        (
            "net_n:Net",
            "\nraise ValueError('of the user')\n",
            r"ValueError: of the user \(.*net_n\.py, line 2\)",
        ),
        ("net_o:Net", "import sys\nsys.exit(3)\n", r"SystemExit: 3 \(.*net_o\.py, line 2\)"),
        ("net_p:Net", "assert False\n", r"cannot be imported: AssertionError \(.*net_p\.py, line 1\)"),
    ],
)
def test_why_a_model_cannot_be_imported(folder: Path, path: str, source: str | None, says: str) -> None:
    name = path.strip("./").replace("/", "").split(":")[0].split(".")[0]
    if source is not None and name:
        (folder / f"{name}.py").write_text(source)
    with pytest.raises(ConfigError, match=f"model '{path}'.*{says}"):
        check_options(path, [])


def test_what_is_built_into_python_is_no_model() -> None:
    with pytest.raises(ConfigError, match=r"module builtins \(built in\) has no attribute 'Net'"):
        check_options("builtins:Net", [])
    with pytest.raises(
        ConfigError, match=r"model builtins:max is no class of nn\.Module: no signature found"
    ):
        check_options("builtins:max", [])


def test_an_error_of_several_lines_becomes_one_line(folder: Path) -> None:
    (folder / "net_q.py").write_text("raise ValueError('first\\n  second')\n")
    with pytest.raises(ConfigError, match="ValueError: first second"):
        check_options("net_q:Net", [])


@pytest.mark.parametrize("name", [*ARCHITECTURES, *(f"tests.own_backbone:{kind}" for kind in SOUND)])
def test_sound_models_have_the_derivatives_of_a_reference(name: str) -> None:
    check_reference_model(ModelConfig(name=name), fields=3, dim=4, tasks=2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NoForwardMode", "forward-mode derivative of it: NotImplementedError"),
        ("NoSecondOrder", "derivative of the gradient of it: RuntimeError: derivative is not impl"),
    ],
)
def test_a_model_without_a_derivative_of_the_method_is_a_candidate_only(name: str, says: str) -> None:
    build(f"own_faulty_backbone:{name}")
    with pytest.raises(ConfigError, match=f"own_faulty_backbone:{name} cannot be a reference, .* no {says}"):
        check_reference_model(ModelConfig(name=f"tests.own_faulty_backbone:{name}"), fields=3, dim=4, tasks=2)


@pytest.mark.parametrize("name", ["WrongShape", "NoForwardMode"])
def test_a_faulty_reference_is_refused_before_a_run_is_created(
    drift_log: str, tmp_path: Path, name: str
) -> None:
    module = "own_backbone" if name == "WrongShape" else "own_faulty_backbone"
    config = RunConfig(dim=4, reference=ReferenceConfig(name=f"tests.{module}:{name}", ensemble=()))
    with pytest.raises(ConfigError, match=name):
        diet_ray.distill(drift_log, str(tmp_path / "run"), config)
    assert not (tmp_path / "run").exists()

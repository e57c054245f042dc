"""The examples in docstrings run; those of the public API in a folder with a log, a run and a model."""

import doctest
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import diet_ray
from diet_ray.config import CandidateConfig, FitConfig, RunConfig
from diet_ray.evaluation.cell import Setting, run_cell
from diet_ray.evaluation.export import write_model
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from diet_ray.log.preparation.prepare import prepare
from diet_ray.storage import Folder

MODULES = (
    "diet_ray.config",
    "diet_ray.evaluation.exported_model",
    "diet_ray.log.preparation.prepare",
    "diet_ray.log.schema",
    "diet_ray.models.backbone",
    "diet_ray.local",
    "diet_ray.runs.published_memory",
    "tune_spaces.space",
)
SMALL = RunConfig(
    ratio=0.05,
    dim=4,
    pool_rows=256,
    reference={"name": "finalnet", "ensemble": ()},
    method={"inner": {"batch_size": 8, "horizon": 2, "window": 1}, "outer": {"iterations": 1}},
)


CLICKS = """
name: clicks
time: {column: ts}
fields: [user]
tasks: [clicked]
blocks:
  history: [[2021-01-01, 2021-01-04]]
  subsequent: [2021-01-04, 2021-01-05]
  validation: [2021-01-05, 2021-01-06]
  test: [2021-01-06, 2021-01-07]
"""
DAYS = range(1, 7)


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data/demo, runs/demo and models/best, as the examples name them."""
    folder, drift = tmp_path_factory.mktemp("user"), DriftConfig(rows=1_500, users=100, items=80)
    data = str(folder / "data" / "demo")
    log = prepare(drift_schema(drift), write_drift_log(drift, data), data)
    diet_ray.distill(data, str(folder / "runs" / "demo"), SMALL, probe_seeds=0)
    export_model(log, str(folder / "models" / "best"))
    (folder / "clicks.yaml").write_text(CLICKS)
    (folder / "clicks.csv").write_text(
        "ts,user,clicked\n" + "".join(f"2021-01-0{d},u{d % 2},{d % 2}\n" for d in DAYS)
    )
    return folder


def export_model(log: PreparedLog, url: str) -> None:
    candidate = CandidateConfig(name="finalnet", options={"hidden": [8]})
    setting = Setting(log, SMALL.dim, SMALL.training, FitConfig())
    recommender, result = run_cell("cold", candidate, 0, setting)
    write_model(Folder.at(url), recommender, candidate, log, result, {"run": "runs/demo"})


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_run(name: str, user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(user_folder)
    failed, tried = run_examples(import_module(name))
    assert tried and not failed


def run_examples(module: ModuleType) -> tuple[int, int]:
    """How many examples of a module's docstrings failed, and how many there are."""
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testmod(module, optionflags=options)
    return result.failed, result.attempted

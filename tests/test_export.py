"""A trained candidate leaves as files and comes back the same."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from diet_ray.config import CandidateConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.cell import Setting, run_cell
from diet_ray.evaluation.export import read_model, write_model
from diet_ray.log.dataset import PreparedLog
from diet_ray.storage import Folder
from diet_ray.training.embedding import score_block
from tests.tiny_run import FIT, TINY

CANDIDATE = CandidateConfig(name="finalnet", options={"hidden": [8, 8]}, learning_rate=0.005)


@pytest.fixture
def exported(drift_log: str, tmp_path: Path) -> Folder:
    log, folder = PreparedLog.open(drift_log), Folder.at(str(tmp_path))
    learner, result = run_cell("full", CANDIDATE, 0, Setting(log, 8, TINY.training, FIT))
    write_model(folder, learner, CANDIDATE, log, result, {"run": "runs/x", "stage": 3})
    return folder


def test_an_exported_model_scores_as_it_did(drift_log: str, exported: Folder) -> None:
    learner, card = read_model(exported)
    log = PreparedLog.open(drift_log)
    again = score_block(learner, log, log.blocks["test"])
    assert again.auc == pytest.approx(card["metrics"]["test"]["auc"], abs=1e-6)
    assert learner.tables.rows == log.blocks["subsequent"].table_rows
    assert CandidateConfig.model_validate(card["candidate"]) == CANDIDATE
    assert card["schema"]["tasks"] == list(log.tasks)
    assert card["provenance"]["run"] == "runs/x"


def test_the_readme_has_front_matter_and_the_same_figures(exported: Folder) -> None:
    readme = (Path(exported.root) / "README.md").read_text()
    front = yaml.safe_load(readme.split("---")[1])
    assert front["library_name"] == "diet_ray"
    test = json.loads((Path(exported.root) / "card.json").read_text())["metrics"]["test"]
    assert f"| mean | {test['auc']:.4f} | {test['logloss']:.4f} |" in readme


def test_weights_are_those_of_training_and_nothing_else(exported: Folder) -> None:
    from safetensors.torch import load

    names = set(load(exported.read("model.safetensors")))
    assert not any("exp_avg" in name for name in names)
    assert all(name.startswith(("tables.", "dense.")) for name in names)


def test_what_is_no_model_or_a_damaged_one_is_refused(exported: Folder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no exported model"):
        read_model(Folder.at(str(tmp_path / "nothing")))
    content = exported.read("model.safetensors")
    exported.write("model.safetensors", content[:-9])
    with pytest.raises(RunError, match="damaged model"):
        read_model(exported)
    torch.manual_seed(0)
    exported.write("model.safetensors", content)
    card = exported.read_json("card.json")
    exported.write_json("card.json", {**card, "candidate": {"name": "dcn", "opitons": {}}})
    with pytest.raises(RunError, match=r"card\.json.*\n.*opitons"):
        read_model(exported)

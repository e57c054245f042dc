"""An exported model: the same predictions after it is read back, and files that say what it is."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import diet_ray
from diet_ray.config import CandidateConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.export import read_model, write_model
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import predict
from diet_ray.storage import Folder
from diet_ray.training.candidate_setup import candidate_recommender
from diet_ray.training.learning import learn_block
from diet_ray.training.metrics import Scores, TaskScore
from diet_ray.training.recommender import Recommender
from tests.distinct_blocks import HEAD, SMALL, TABLE_ROWS, write_distinct_blocks

CANDIDATE = CandidateConfig(name="finalnet", options={"hidden": [6]}, head=HEAD)
TEST = Scores(0.75, 0.25, {"click": TaskScore(0.71234, 0.5), "like": TaskScore(float("nan"), 0.125)})
VALIDATION = Scores(0.5, 0.75, {"click": TaskScore(0.5, 0.5), "like": TaskScore(0.5, 1.0)})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recommender, PreparedLog]:
    folder = tmp_path_factory.mktemp("card")
    log = write_distinct_blocks(folder / "log")
    learner = candidate_recommender(CANDIDATE, 5, log, 4, SMALL.training)
    for block in log.history:
        learn_block(learner, log, block, SMALL.training, 0)
    result: Any = SimpleNamespace(after=TEST, validation=VALIDATION, before=None)
    target = Folder.at(str(folder / "model"))
    write_model(target, learner, CANDIDATE, log, result, {"run": "here", "stage": 2})
    return folder / "model", learner, log


def test_a_model_reads_back_with_its_predictions(
    exported: tuple[Path, Recommender, PreparedLog],
) -> None:
    folder, learner, log = exported
    restored, card = read_model(Folder.at(str(folder)))
    id_NF = next(log.chunks(log.blocks["0002"])).id_NF
    ours, theirs = (
        predict(model.dense, model.tables(torch.tensor(id_NF).long())) for model in (learner, restored)
    )
    assert torch.equal(ours, theirs) and ours.std() > 0
    assert restored.tables.rows == TABLE_ROWS["0002"] == learner.tables.rows
    assert card == json.loads((folder / "card.json").read_text())


def test_the_card_says_what_it_is_and_how_it_scores(
    exported: tuple[Path, Recommender, PreparedLog],
) -> None:
    folder, _, _ = exported
    stamp = Folder.at(str(folder)).digest("model.safetensors")
    assert json.loads((folder / "card.json").read_text()) == {
        "format": 2,
        "versions": {"diet_ray": diet_ray.__version__, "torch": torch.__version__},
        "candidate": CANDIDATE.model_dump(mode="json"),
        "schema": {"fields": {"user": 26, "item": 12, "hour": 5}, "dim": 4, "tasks": ["click", "like"]},
        "metrics": {
            "test": {
                "auc": 0.75,
                "logloss": 0.25,
                "tasks": {
                    "click": {"auc": 0.71234, "logloss": 0.5},
                    "like": {"auc": None, "logloss": 0.125},
                },
            },
            "validation": {
                "auc": 0.5,
                "logloss": 0.75,
                "tasks": {"click": {"auc": 0.5, "logloss": 0.5}, "like": {"auc": 0.5, "logloss": 1.0}},
            },
        },
        "provenance": {"run": "here", "stage": 2, "weights_sha256": stamp.sha256},
    }


def test_the_readme_has_front_matter_scores_fields_and_provenance(
    exported: tuple[Path, Recommender, PreparedLog],
) -> None:
    text = (exported[0] / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "diet_ray",
        "tags": ["recommendation", "dataset-distillation", "finalnet"],
    }
    lines = body.splitlines()
    assert lines[0] == "# finalnet for click, like"
    assert lines[4:9] == [
        "| | test AUC | test LogLoss |",
        "|---|---|---|",
        "| click | 0.7123 | 0.5000 |",
        "| like | n/a | 0.1250 |",
        "| mean | 0.7500 | 0.2500 |",
    ]
    assert lines[lines.index("## Fields") + 2 :][:3] == [
        "- user: 26 rows of 4",
        "- item: 12 rows of 4",
        "- hour: 5 rows of 4",
    ]
    for title, expected in (
        ("## Candidate", CANDIDATE.model_dump(mode="json")),
        ("## Provenance", json.loads((exported[0] / "card.json").read_text())["provenance"]),
    ):
        block = text.split(f"{title}\n\n```json\n")[1].split("\n```")[0]
        assert json.loads(block) == expected
    assert text.endswith("```\n")


def test_a_folder_without_a_card_and_a_damaged_model_are_named(
    exported: tuple[Path, Recommender, PreparedLog], tmp_path: Path
) -> None:
    folder = Folder.at(str(tmp_path / "copy"))
    with pytest.raises(RunError, match=r"copy holds no exported model: it has no card\.json"):
        read_model(folder)
    card = json.loads((exported[0] / "card.json").read_text())
    weights = (exported[0] / "model.safetensors").read_bytes()
    other = {**card, "candidate": {**card["candidate"], "options": {"hidden": [8]}}}
    for content, stored in ((weights[:-9], card), (weights, other), (weights, {"schema": {}}), (weights, [])):
        folder.write("model.safetensors", content)
        folder.write_json("card.json", stored)
        with pytest.raises(RunError, match="holds a damaged model"):
            read_model(folder)
    folder.write_json("card.json", {**card, "candidate": {"nome": "dcn"}})
    with pytest.raises(RunError, match=r"card\.json is not valid:\s+nome"):
        read_model(folder)

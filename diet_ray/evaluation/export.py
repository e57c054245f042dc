"""A trained candidate as files: weights without pickle, and a card that says what they are and where from.

model.safetensors  tables.F [rows, dim] per field, dense.* of the ranking model
card.json          candidate, schema, metrics, provenance
README.md          the same for people, with the front matter that model hubs read
"""

import json
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from diet_ray.config import CandidateConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.cell import CellResult, new_candidate
from diet_ray.log.dataset import PreparedLog
from diet_ray.storage import Folder
from diet_ray.strict import config_error
from diet_ray.training.recommender import Recommender
from diet_ray.training.state import to_safetensors

WEIGHTS, CARD, README = "model.safetensors", "card.json", "README.md"


def write_model(
    folder: Folder,
    learner: Recommender,
    candidate: CandidateConfig,
    log: PreparedLog,
    result: CellResult,
    provenance: dict[str, Any],
) -> None:
    """Write the three files, the card last: a folder with a card is whole."""
    weights = {f"tables.{f}": weight.detach() for f, weight in enumerate(learner.tables.weights())}
    weights |= {f"dense.{name}": part for name, part in learner.dense.state_dict().items()}
    stamp = folder.write(WEIGHTS, to_safetensors(weights))
    rows = dict(zip(log.fields, learner.tables.rows, strict=True))
    card = {
        "candidate": candidate.model_dump(mode="json"),
        "schema": {"fields": rows, "dim": learner.tables.weights()[0].shape[1], "tasks": list(log.tasks)},
        "metrics": {"test": _scores(result.after), "validation": _scores(result.validation)},
        "provenance": {**provenance, "weights_sha256": stamp.sha256},
    }
    folder.write(README, _readme(card).encode())
    folder.write_json(CARD, card)


def read_model(folder: Folder) -> tuple[Recommender, dict[str, Any]]:
    """The recommender and its card; RunError where the folder holds none, or a damaged one."""
    if not folder.exists(CARD):
        raise RunError(f"{folder.root} holds no exported model: it has no {CARD}")
    card = folder.read_json(CARD)
    try:
        schema, candidate = card["schema"], CandidateConfig.model_validate(card["candidate"])
        fields, dim, tasks = len(schema["fields"]), schema["dim"], len(schema["tasks"])
        dense = new_candidate(candidate, 0, fields=fields, dim=dim, tasks=tasks)
        weights = load(folder.read(WEIGHTS))
        learner = Recommender(dense, fields, dim)
        for field, table in enumerate(learner.tables.weights()):
            table.data = weights[f"tables.{field}"]
        dense.load_state_dict({name: weights[f"dense.{name}"] for name in dense.state_dict()})
    except ValidationError as wrong:
        raise RunError(str(config_error(wrong, folder / CARD))) from wrong
    except (SafetensorError, KeyError, TypeError, RuntimeError) as broken:
        raise RunError(f"{folder.root} holds a damaged model: {broken}") from broken
    return learner, card


def _scores(scores: Any) -> dict[str, Any]:
    tasks = {name: score._asdict() for name, score in scores.tasks.items()}
    return {"auc": scores.auc, "logloss": scores.logloss, "tasks": tasks}


def _readme(card: dict[str, Any]) -> str:
    candidate, schema, test = card["candidate"], card["schema"], card["metrics"]["test"]
    front = {
        "library_name": "diet_ray",
        "tags": ["recommendation", "dataset-distillation", candidate["name"]],
    }
    lines = [
        "---",
        yaml.safe_dump(front).strip(),
        "---",
        f"# {candidate['name']} for {', '.join(schema['tasks'])}",
    ]
    lines += [
        "",
        "Its dense part learned from a distilled memory, the whole model then from the newest block.",
    ]
    lines += ["", "| | test AUC | test LogLoss |", "|---|---|---|"]
    lines += [f"| {n} | {s['auc']:.4f} | {s['logloss']:.4f} |" for n, s in test["tasks"].items()]
    lines += [f"| mean | {test['auc']:.4f} | {test['logloss']:.4f} |", "", "## Fields", ""]
    lines += [f"- {name}: {rows:,} rows of {schema['dim']}" for name, rows in schema["fields"].items()]
    for title, what in (("Candidate", candidate), ("Provenance", card["provenance"])):
        lines += ["", f"## {title}", "", "```json", json.dumps(what, indent=1, sort_keys=True), "```"]
    return "\n".join(lines) + "\n"

"""A trained candidate as files: all that scoring raw rows needs, and nothing that is unpickled.

model.safetensors  tables.F [rows, dim] per field, dense.* of the ranking model
schema.yaml        with vocabulary/ and side/: how raw rows are encoded (log.scoring.encoding)
card.json          candidate, tables, metrics (null where the rows have one class only), provenance, versions
README.md          the same for people, with the front matter that model hubs read
"""

import json
import math
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from diet_ray.config import CandidateConfig
from diet_ray.errors import RunError
from diet_ray.evaluation.cell import CellResult
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.scoring.encoding import write_encoding
from diet_ray.storage import Folder
from diet_ray.strict import config_error
from diet_ray.training.candidate_setup import new_candidate
from diet_ray.training.recommender import Recommender
from diet_ray.training.serialization import to_safetensors
from diet_ray.version import __version__

WEIGHTS, CARD, README = "model.safetensors", "card.json", "README.md"
FORMAT = 2  # 1, without the key, had no encoding


def write_model(
    folder: Folder,
    learner: Recommender,
    candidate: CandidateConfig,
    log: PreparedLog,
    result: CellResult,
    provenance: dict[str, Any],
) -> None:
    """Write the files, the card last: a folder with a card is complete.

    Args:
        folder: Where to; created if need be.
        learner: The trained candidate with its tables.
        candidate: Its config.
        log: The prepared log it was trained on.
        result: Its scores.
        provenance: What else the card is to say, in plain values.
    """
    tables = learner.tables.by_field()
    weights = {f"tables.{f}": weight.contiguous() for f, weight in enumerate(tables)}
    weights |= {f"dense.{name}": part for name, part in learner.dense.state_dict().items()}
    stamp = folder.write(WEIGHTS, to_safetensors(weights))
    write_encoding(folder, log, learner.tables.rows)
    rows = dict(zip(log.fields, learner.tables.rows, strict=True))
    card = {
        "format": FORMAT,
        "versions": {"diet_ray": __version__, "torch": str(torch.__version__)},
        "candidate": candidate.model_dump(mode="json"),
        "schema": {"fields": rows, "dim": tables[0].shape[1], "tasks": list(log.tasks)},
        "metrics": {"test": _scores(result.after), "validation": _scores(result.validation)},
        "provenance": {**provenance, "weights_sha256": stamp.sha256},
    }
    folder.write(README, _readme(card).encode())
    folder.write_json(CARD, card)


def read_model(folder: Folder, device: str = "cpu") -> tuple[Recommender, dict[str, Any]]:
    """Return the recommender and its card.

    Raises:
        RunError: the folder holds no exported model, a damaged one, or one of a later version.
        ConfigError: its architecture is the user's own and cannot be imported here.
    """
    if not folder.exists(CARD):
        raise RunError(f"{folder.root} holds no exported model: it has no {CARD}")
    card = folder.read_json(CARD)
    if isinstance(card, dict) and card.get("format", 1) > FORMAT:
        raise RunError(f"{folder.root} holds a model of a later version of diet_ray; update diet_ray")
    try:
        schema, candidate = card["schema"], CandidateConfig.model_validate(card["candidate"])
        fields, dim, tasks = len(schema["fields"]), schema["dim"], len(schema["tasks"])
        dense = new_candidate(candidate, 0, fields=fields, dim=dim, tasks=tasks)
        weights = load(folder.read(WEIGHTS))
        learner = Recommender(dense, fields, dim, device=device)
        for field, table in enumerate(learner.tables.weights()):
            table.data = weights[f"tables.{field}"].to(learner.device)
        dense.load_state_dict({name: weights[f"dense.{name}"] for name in dense.state_dict()})
    except ValidationError as wrong:
        raise RunError(str(config_error(wrong, folder / CARD))) from wrong
    except (SafetensorError, KeyError, TypeError, RuntimeError) as broken:
        raise RunError(f"{folder.root} holds a damaged model: {broken}") from broken
    return learner, card


def _scores(scores: Any) -> dict[str, Any]:
    tasks = {name: score._asdict() for name, score in scores.tasks.items()}
    return {"auc": scores.auc, "logloss": scores.logloss, "tasks": tasks}


def _shown(score: float) -> str:
    return "n/a" if math.isnan(score) else f"{score:.4f}"


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
        "Its dense part was trained on a distilled memory, then the whole model on the newest block.",
    ]
    lines += ["", "| | test AUC | test LogLoss |", "|---|---|---|"]
    rows = {**test["tasks"], "mean": test}
    lines += [f"| {name} | {_shown(s['auc'])} | {_shown(s['logloss'])} |" for name, s in rows.items()]
    lines += ["", "## Fields", ""]
    lines += [f"- {name}: {rows:,} rows of {schema['dim']}" for name, rows in schema["fields"].items()]
    for title, what in (("Candidate", candidate), ("Provenance", card["provenance"])):
        lines += ["", f"## {title}", "", "```json", json.dumps(what, indent=1, sort_keys=True), "```"]
    return "\n".join(lines) + "\n"

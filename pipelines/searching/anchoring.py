"""The anchors of a search: judged like any candidate, before the sweep, and what they say of the judges."""

from typing import NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

from actors.cells import judge_candidate
from actors.connection import user_errors
from actors.tasks import as_finished
from diet_ray import layout
from diet_ray.evaluation.judges.anchors import Anchor, Calibration, calibrate
from diet_ray.evaluation.judges.record import JudgeRecord
from diet_ray.storage import Folder
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.progress import Bars, console

NUMBERS = ("combined_tau", "p_value", "slope", "agreement")  # of a Calibration; null in JSON where NaN


class AnchorScores(NamedTuple):
    """The anchors of a search before its judges."""

    architectures: list[str]
    score_A: NDArray[np.floating]  # weighted mean of the judges, as of candidates
    auc_A: NDArray[np.floating]  # after full training


def calibrated(
    anchors: list[Anchor],
    judges: tuple[str, ...],
    seeds: int,
    evaluated: EvaluatedRun,
    folder: Folder,
    gpus: float,
    shown: Bars,
) -> Calibration:
    """Judge the anchors that are not on record, and write calibration.json."""
    task, arguments = judge_candidate.options(num_gpus=gpus), evaluated.task_arguments()
    plain = [anchor.candidate.model_dump(mode="json") for anchor in anchors]
    running = {
        task.remote(*arguments, judges, anchors[number].candidate, seed): (number, seed)
        for number in range(len(anchors))
        for seed in range(seeds)
        if not _stored(folder, number, plain[number], seed)
    }
    with shown.bar("anchors", len(running), "anchors") as bar:
        for (number, seed), done in as_finished(running):
            with user_errors():
                records = [record.model_dump(mode="json") for record in ray.get(done)]
            _keep(folder, number, plain[number], seed, records)
            bar.advance(1)
    score_AJ = np.array([_scores(folder, number, judges) for number in range(len(anchors))])
    found = calibrate(np.array([anchor.auc for anchor in anchors]), score_AJ, list(judges))
    auc = [anchor.auc for anchor in anchors]
    folder.write_json(layout.CALIBRATION, {"anchors": len(anchors), "auc": auc, **found._asdict()})
    console.print(calibration_text(found, len(anchors)), markup=False)
    return found


def calibration_text(found: Calibration, anchors: int) -> str:
    """What the anchors say, in a line or two."""
    each = [f"{name} {tau:.2f} (weight {found.weights[name]:.2f})" for name, tau in found.tau.items()]
    text = f"Kendall tau with {anchors} anchors: {', '.join(each)}, together {found.combined_tau:.2f}"
    if found.believed:
        return text
    return (
        f"{text}\nthe judges order these anchors no better than chance (p = {found.p_value:.2f}): do not "
        "believe this search; confirm its best with --confirm full, or try other --judges"
    )


def stored_calibration(folder: Folder) -> Calibration | None:
    """The calibration of a search that had anchors."""
    if not folder.exists(layout.CALIBRATION):
        return None
    found = folder.read_json(layout.CALIBRATION)
    numbers = {name: float("nan") if found[name] is None else found[name] for name in NUMBERS}
    return Calibration(found["weights"], found["tau"], **numbers)


def stored_anchor_scores(folder: Folder, calibration: Calibration | None) -> AnchorScores | None:
    """What judges and full training say of the anchors of a search that had some."""
    if calibration is None:
        return None
    auc_A = np.array(folder.read_json(layout.CALIBRATION)["auc"])
    judges, weight_J = tuple(calibration.weights), np.array(list(calibration.weights.values()))
    score_AJ = np.array([_scores(folder, number, judges) for number in range(len(auc_A))])
    stored = [folder.read_json(layout.anchor(number)) for number in range(len(auc_A))]
    names = [str(own["candidate"]["name"]) for own in stored]
    return AnchorScores(names, score_AJ @ weight_J / weight_J.sum(), auc_A)


def _stored(folder: Folder, number: int, candidate: dict[str, object], seed: int) -> bool:
    path = layout.anchor(number)
    if not folder.exists(path):
        return False
    known = folder.read_json(path)
    return bool(known["candidate"] == candidate and str(seed) in known["judged"])


def _keep(
    folder: Folder, number: int, candidate: dict[str, object], seed: int, records: list[dict[str, object]]
) -> None:
    path = layout.anchor(number)
    known = folder.read_json(path) if folder.exists(path) else {}
    judged = known["judged"] if known.get("candidate") == candidate else {}
    folder.write_json(path, {"candidate": candidate, "judged": {**judged, str(seed): records}})


def _scores(folder: Folder, number: int, judges: tuple[str, ...]) -> list[float]:
    """The AUC of an anchor by each judge, mean over seeds."""
    known = folder.read_json(layout.anchor(number))["judged"]
    records = [JudgeRecord.model_validate(record) for own in known.values() for record in own]
    return [float(np.mean([r.score.auc for r in records if r.judge == judge])) for judge in judges]

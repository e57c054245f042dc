"""The results of a search as files.

Columns of results.parquet, one row per trial, the best first:

rank: 0 for the best; number, model, candidate (JSON), learning_rate, state, reason: the trial.
score: weighted mean of the judges' AUC; deviation: of its difference to the mean candidate, over rows, seeds
and the judges' agreement with full training; near: probability of being within 0.001 of the best; rival: not
told apart from the winner. All four for those judged to the end, NaN and false for the others.
expected: AUC after full training that score, architecture and the full trainings known so far make likely
(judges/expected.py), of this search or else the anchors; near and rival then go by it. NaN without any.
judge_NAME_auc: per judge, of the newest piece, mean over seeds; pieces: how many pieces that were.
auc, logloss, epochs, epoch_auc, epoch_logloss: on the memory. objective: what the search maximised.
cost: in full trainings of this candidate; full_seconds: CPU seconds of one, estimated; seconds, cpu_seconds.
confirmed_by, confirmed_validation_auc, confirmed_test_auc, confirmed_test_logloss, confirmed_objective: of
the confirmation, on the memory (diet) or on all history (full).
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import yaml

from diet_ray import layout
from diet_ray.evaluation.judges.anchors import Calibration
from diet_ray.evaluation.judges.certainty import (
    DRAWS,
    Noise,
    certainty,
    mean_score,
    near_and_rivals,
    seed_deviation,
    usual_agreement,
)
from diet_ray.evaluation.judges.cost import FullCost, full_rows
from diet_ray.evaluation.judges.expected import expected, next_to_train
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.seeding import numpy_generator
from diet_ray.storage import Folder
from diet_ray.training.candidate import EpochScore, objective
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.run_access import write_table
from pipelines.searching.anchoring import AnchorScores, stored_anchor_scores, stored_calibration
from pipelines.searching.sweep import trial_records

UNKNOWN = float("nan")
METHODS = ("full", "diet")  # of confirmations, the more telling one first


def publish(folder: Folder, evaluated: EvaluatedRun, *, samples: int, seeds: int) -> pd.DataFrame:
    """Write results.parquet, results.json and best.yaml from what is on record; return the results.

    First is who is expected to be the best of those that were fully trained, then the others by what is
    expected of them, then who came further before the judges, and the score there. Without a full training
    it is how far, then the score; without judges `objective` after confirmation, then before it: validation
    AUC, or minus LogLoss where the validation block has no AUC.
    """
    trials = trial_records(folder, samples)
    full_cost = FullCost(full_rows(evaluated.log), round(evaluated.config.ratio * full_rows(evaluated.log)))
    results = pd.DataFrame([_row(record, seeds, folder, full_cost) for record in trials])
    if results.empty:
        return results
    calibration = stored_calibration(folder)
    results = results.merge(_certainty(trials, calibration), on="number", how="left")
    results["rival"] = results["rival"].fillna(False).astype(bool)
    results["expected"] = UNKNOWN
    _expect(results, stored_anchor_scores(folder, calibration))
    fully = _known(results) & results["expected"].notna()
    keys = {
        "first": results["expected"].where(fully) == results["expected"].where(fully).max(),
        "expected": results["expected"],
        "confirmed": results["confirmed_objective"].where(results["pieces"] == 0),
        "pieces": results["pieces"],
        "judged": _judged(results),
    }
    order = pd.DataFrame(keys).sort_values(list(keys), ascending=False).index
    results = results.loc[order].reset_index(drop=True)
    results.insert(0, "rank", np.arange(len(results)))
    write_table(folder, layout.SEARCH_RESULTS, results)
    if results["objective"].notna().any():
        best = next(record for record in trials if record.number == results["number"][0])
        candidate = yaml.safe_dump(best.candidate.model_dump(mode="json"))
        folder.write(layout.BEST_CANDIDATE, candidate.encode())
    return results


def full_training_due(results: pd.DataFrame, tried: list[int], count: int) -> list[int]:
    """Numbers of the trials to train fully next, until `count` are; those that were tried in vain count."""
    if results.empty:
        return []
    known = _known(results)
    vain = (results["number"].isin(tried) | (results["confirmed_by"] == "full")) & ~known
    judged = results[_comparable(results) & ~vain].sort_values("number", ignore_index=True)
    trained = np.flatnonzero(_known(judged)).tolist()
    places = next_to_train(
        _judged(judged).to_numpy(),
        judged["model"].tolist(),
        trained,
        judged["confirmed_objective"].to_numpy()[trained],
        max(0, count - int(known.sum()) - int(vain.sum())),
    )
    return [int(judged["number"][place]) for place in places]


def _judged(results: pd.DataFrame) -> pd.Series:
    """What trials are compared by: the judges' score where there is one, else the objective."""
    return results["score"].where(results["score"].notna(), results["objective"])


def _known(results: pd.DataFrame) -> pd.Series:
    """The trials whose full training has a score."""
    return (results["confirmed_by"] == "full") & results["confirmed_objective"].notna()


def _comparable(results: pd.DataFrame) -> pd.Series:
    """The trials that came as far as any."""
    alive = results["objective"].notna()
    return alive & (results["pieces"] == results["pieces"][alive].max())


def _expect(results: pd.DataFrame, anchors: AnchorScores | None) -> None:
    """Fill in what is expected, and who is near the best by it, where a full training is known."""
    rows = results.index[_comparable(results)]
    own = results.loc[rows]
    trained = np.flatnonzero(_known(own)).tolist()
    score, names = _judged(own).to_numpy(), own["model"].tolist()
    if trained:
        found = expected(score, names, trained, own["confirmed_objective"].to_numpy()[trained])
    elif anchors and len(own):
        joined = np.concatenate([score, anchors.score_A])
        places = list(range(len(own), len(joined)))
        found = expected(joined, [*names, *anchors.architectures], places, anchors.auc_A).of(len(own))
    else:
        return
    first = found.best_of(trained or range(len(own)))
    draws = found.draws(DRAWS, numpy_generator(0, "search", "expected"))
    near_C, beats_C = near_and_rivals(draws, first)
    results.loc[rows, ["expected", "near"]] = np.stack([found.auc_C, near_C], 1)
    results.loc[rows, "rival"] = beats_C


def _row(record: TrialRecord, seeds: int, folder: Folder, full_cost: FullCost) -> dict[str, Any]:
    """A trial as a row; scores of the confirmation are means over the seeds, NaN where there is none."""
    alive = record.state != "failed"
    memory = record.best_until(record.epochs) if record.epochs and alive else None
    newest = record.score_after(record.steps) if record.steps and alive else None
    return {
        "number": record.number,
        "model": record.candidate.name,
        "candidate": json.dumps(record.candidate.model_dump(mode="json"), sort_keys=True),
        "learning_rate": record.candidate.learning_rate,
        "state": record.state,
        "reason": record.reason,
        **_judges(record),
        "pieces": record.pieces,
        "auc": memory.auc if memory else UNKNOWN,
        "logloss": memory.logloss if memory else UNKNOWN,
        "epochs": record.epochs,
        "epoch_auc": [[score.auc for score in scores] for scores in record.scores],
        "epoch_logloss": [[score.logloss for score in scores] for scores in record.scores],
        "objective": objective(newest) if newest else UNKNOWN,
        "seeds": len(record.scores),
        "cost": full_cost.spent(record),
        "full_seconds": full_cost.seconds(record),
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
        "peak_bytes": record.peak_bytes,
        **_confirmation(record.number, seeds, folder),
    }


def _judges(record: TrialRecord) -> dict[str, float]:
    """The newest score of each judge, mean over seeds."""
    names = dict.fromkeys(judged.judge for judged in record.judged)
    newest = {name: [own.auc[-1] for own in record.judged if own.judge == name and own.auc] for name in names}
    return {f"judge_{name}_auc": float(np.mean(auc)) if auc else UNKNOWN for name, auc in newest.items()}


def _confirmation(number: int, seeds: int, folder: Folder) -> dict[str, Any]:
    for method in METHODS:
        paths = [layout.confirmation(method, number, seed) for seed in range(seeds)]
        cells = pd.DataFrame([folder.read_json(path) for path in paths if folder.exists(path)])
        if not cells.empty:
            break

    def mean(column: str) -> float:
        return UNKNOWN if cells.empty else float(pd.to_numeric(cells[column]).mean())

    return {
        "confirmed_by": "" if cells.empty else method,
        "confirmed_objective": objective(EpochScore(mean("auc_validation"), mean("logloss_validation"))),
        "confirmed_validation_auc": mean("auc_validation"),
        "confirmed_test_auc": mean("auc"),
        "confirmed_test_logloss": mean("logloss"),
    }


def _certainty(trials: list[TrialRecord], anchored: Calibration | None) -> pd.DataFrame:
    """Score and certainty of the trials that all judges have seen to the end; columns alone without any."""
    ended = [record for record in trials if record.judged and record.state == "finished"]
    # Rows of one class have no AUC, for no candidate.
    judged = [record for record in ended if np.isfinite(record.judges_mean(record.pieces).auc)]
    columns = ["number", "score", "deviation", "near", "rival"]
    if not judged:
        return pd.DataFrame({name: pd.Series(dtype=float) for name in columns})
    records = [record.judged for record in judged]
    weights = anchored.weights if anchored else {}
    agreement = anchored.agreement if anchored else float("nan")
    if np.isnan(agreement):
        agreement = usual_agreement(np.array([mean_score(own, weights) for own in records]))
    noise = Noise(seed_deviation(records, weights), agreement)
    slope = anchored.slope if anchored else 1.0
    draw = numpy_generator(0, "search", "certainty")
    sure = certainty(records, noise, draw, weights, slope)
    rivals = [place in sure.rivals for place in range(len(judged))]
    numbers = [record.number for record in judged]
    values = (numbers, sure.score_C, sure.deviation_C, sure.near_C, rivals)
    return pd.DataFrame(dict(zip(columns, values, strict=True)))

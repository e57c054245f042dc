"""The results of a search: files, and a table for the terminal.

Columns of results.parquet, one row per trial, the best first:

rank: 0 for the best; number, model, candidate (JSON), learning_rate, state, reason: the trial.
score: weighted mean of the judges' AUC; deviation: of its difference to the mean candidate, over rows, seeds
and the judges' agreement with full training; near: probability of being within 0.001 of the best; rival: not
told apart from the winner. All four for those judged to the end, NaN and false for the others.
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
from rich.table import Column, Table

from diet_ray import layout
from diet_ray.evaluation.judges.anchors import Calibration
from diet_ray.evaluation.judges.certainty import (
    Noise,
    certainty,
    mean_score,
    seed_deviation,
    usual_agreement,
)
from diet_ray.evaluation.judges.cost import FullCost, full_rows
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.seeding import numpy_generator
from diet_ray.storage import Folder
from diet_ray.training.candidate import EpochScore, objective
from pipelines.runtime.comparison import EvaluatedRun
from pipelines.runtime.run_access import write_table
from pipelines.searching.anchoring import stored_calibration
from pipelines.searching.sweep import trial_records

UNKNOWN = float("nan")
METHODS = ("full", "diet")  # of confirmations, the more telling one first
SHOWN_RIVALS = 10


def publish(folder: Folder, evaluated: EvaluatedRun, *, samples: int, seeds: int) -> pd.DataFrame:
    """Write results.parquet, results.json and best.yaml from what is on record; return the results.

    The order is that after full training, of those that were fully trained; then who came further before the
    judges, and the score there. Without judges it is that of `objective` after confirmation, then before it:
    validation AUC, or minus LogLoss where the validation block has no AUC.
    """
    trials = trial_records(folder, samples)
    full_cost = FullCost(full_rows(evaluated.log), round(evaluated.config.ratio * full_rows(evaluated.log)))
    results = pd.DataFrame([_row(record, seeds, folder, full_cost) for record in trials])
    if results.empty:
        return results
    results = results.merge(_certainty(trials, stored_calibration(folder)), on="number", how="left")
    results["rival"] = results["rival"].fillna(False).astype(bool)
    results["by_confirmation"] = results["confirmed_objective"].where(
        (results["confirmed_by"] == "full") | (results["pieces"] == 0)
    )
    results["judged"] = results["score"].where(results["score"].notna(), results["objective"])
    order = ["by_confirmation", "pieces", "judged"]
    results = results.sort_values(order, ascending=False, ignore_index=True).drop(
        columns=["by_confirmation", "judged"]
    )
    results.insert(0, "rank", np.arange(len(results)))
    write_table(folder, layout.SEARCH_RESULTS, results)
    if results["objective"].notna().any():
        best = next(record for record in trials if record.number == results["number"][0])
        candidate = yaml.safe_dump(best.candidate.model_dump(mode="json"))
        folder.write(layout.BEST_CANDIDATE, candidate.encode())
    return results


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


def leaderboard(results: pd.DataFrame, rows: int = 10) -> Table:
    """The best trials, within 80 columns, in the order of what is shown."""
    shown = _judged_table() if _by_judges(results) else _memory_table()
    for row in results[results["objective"].notna()].head(rows).to_dict("records") if len(results) else []:
        confirmed = [_score(row[f"confirmed_{key}"]) for key in ("validation_auc", "test_auc")]
        if _by_judges(results):
            sure = "" if pd.isna(row["near"]) else f"{row['near']:.0%}"
            own = [
                _score(row["objective"] if pd.isna(row["score"]) else row["score"]),
                sure,
                str(row["pieces"]),
            ]
            own = [*own, f"{row['cost']:.2f}", *confirmed]
        else:
            own = [
                _score(row["auc"]),
                _score(row["logloss"]),
                *confirmed,
                _score(row["confirmed_test_logloss"]),
            ]
        shown.add_row(str(row["number"]), row["model"], *own)
    return shown


def _by_judges(results: pd.DataFrame) -> bool:
    return len(results) > 0 and bool((results["pieces"] > 0).any())


def _model() -> Column:
    return Column("model", no_wrap=True, overflow="ellipsis", max_width=16)


def _judged_table() -> Table:
    return Table(
        Column("trial", no_wrap=True),
        _model(),
        *(Column(name, justify="right", no_wrap=True) for name in ("score", "near", "pieces", "cost")),
        *(Column(name, no_wrap=True) for name in ("conf.", "test")),
        title="Best candidates",
        caption="score: AUC on rows of the newest block before they are learned, judges' mean, after so "
        "many pieces; near: probability of being within 0.001 of the best; cost: in full trainings; "
        "conf., test: validation and test AUC after confirmation",
    )


def _memory_table() -> Table:
    return Table(
        "trial",
        _model(),
        *("AUC", "LogLoss", "conf.", "test AUC", "test loss"),
        title="Best candidates",
        caption="AUC, LogLoss: validation block, before the subsequent block is learned; conf.: "
        "validation AUC after it; test loss: LogLoss",
    )


def summary(results: pd.DataFrame, samples: int) -> list[str]:
    """The winner of a search, how sure it is, who is not told apart from it, and what it cost."""
    best = results.iloc[0]
    candidate = candidate_text(json.loads(best["candidate"]))
    lines = [f"best: trial {best['number']}, {best['model']}, {candidate}"]
    if not _by_judges(results):
        return lines
    ended = results[results["near"].notna()]
    if not pd.isna(best["near"]):
        lines.append(
            f"within 0.001 AUC of the best of the {len(ended)} judged to the end with probability "
            f"{best['near']:.0%}"
        )
    rivals = ended[ended["rival"] & (ended["number"] != best["number"])]["number"].tolist()
    if rivals:
        more = f" and {len(rivals) - SHOWN_RIVALS} more" if len(rivals) > SHOWN_RIVALS else ""
        named = ", ".join(str(number) for number in rivals[:SHOWN_RIVALS])
        lines.append(f"not told apart from the first by score: trials {named}{more}")
    full = float((results["confirmed_by"] == "full").sum())
    cost = float(results["cost"].sum()) + full
    lines.append(
        f"cost: {cost:.1f} full trainings for {len(results)} of {samples} candidates, "
        f"1/{len(results) / cost:.0f} of training them all; without reference and memory, which the run has "
        "paid for"
    )
    return lines


def _score(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4f}"


def candidate_text(candidate: dict[str, Any]) -> str:
    """Options and learning rate of a candidate in a line."""
    options = {**candidate["options"], "learning_rate": candidate["learning_rate"]}
    return ", ".join(f"{key} {f'{v:.2g}' if isinstance(v, float) else v}" for key, v in options.items())

"""The results of a search: files, and a table for the terminal."""

import json
from typing import Any

import pandas as pd
import yaml
from rich.table import Table

from diet_ray import layout
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.storage import Folder
from diet_ray.training.candidate import EpochScore, objective
from pipelines.runtime.run_access import write_table
from pipelines.runtime.sweep import trial_records

UNKNOWN = float("nan")


def ranked(trials: list[TrialRecord]) -> list[TrialRecord]:
    """Trials with a score, the best first; those that failed are left out."""
    scored = [record for record in trials if record.epochs and record.state != "failed"]
    return sorted(scored, key=lambda record: -objective(record.best_until(record.epochs)))


def publish(folder: Folder, *, samples: int, seeds: int) -> pd.DataFrame:
    """Write results.parquet, results.json and best.yaml from what is on record; return the results.

    The order is that of `objective` after confirmation, then before it: validation AUC, or minus LogLoss
    where the validation block has no AUC.
    """
    trials = trial_records(folder, samples)
    results = pd.DataFrame([_row(record, seeds, folder) for record in trials])
    if results.empty:
        return results
    results = results.sort_values(["confirmed_objective", "objective"], ascending=False, ignore_index=True)
    write_table(folder, layout.SEARCH_RESULTS, results)
    if results["objective"].notna().any():
        best = next(record for record in trials if record.number == results["number"][0])
        candidate = yaml.safe_dump(best.candidate.model_dump(mode="json"))
        folder.write(layout.BEST_CANDIDATE, candidate.encode())
    return results


def _row(record: TrialRecord, seeds: int, folder: Folder) -> dict[str, Any]:
    """A trial as a row; scores of the confirmation are means over the seeds, NaN where there is none."""
    best = record.best_until(record.epochs) if record.epochs and record.state != "failed" else None
    paths = [layout.confirmation(record.number, seed) for seed in range(seeds)]
    confirmed = pd.DataFrame([folder.read_json(path) for path in paths if folder.exists(path)])

    def mean(column: str) -> float:
        return UNKNOWN if confirmed.empty else float(pd.to_numeric(confirmed[column]).mean())

    return {
        "number": record.number,
        "model": record.candidate.name,
        "candidate": json.dumps(record.candidate.model_dump(mode="json"), sort_keys=True),
        "learning_rate": record.candidate.learning_rate,
        "state": record.state,
        "reason": record.reason,
        "auc": best.auc if best else UNKNOWN,
        "logloss": best.logloss if best else UNKNOWN,
        "epochs": record.epochs,
        "epoch_auc": [[score.auc for score in scores] for scores in record.scores],
        "epoch_logloss": [[score.logloss for score in scores] for scores in record.scores],
        "objective": objective(best) if best else UNKNOWN,
        "seeds": len(record.scores),
        "seconds": record.seconds,
        "peak_bytes": record.peak_bytes,
        "confirmed_objective": objective(EpochScore(mean("auc_validation"), mean("logloss_validation"))),
        "confirmed_validation_auc": mean("auc_validation"),
        "confirmed_test_auc": mean("auc"),
        "confirmed_test_logloss": mean("logloss"),
    }


def leaderboard(results: pd.DataFrame, rows: int = 10) -> Table:
    """The best trials, within 80 columns; test scores exist for those that were confirmed."""
    shown = Table(
        *("trial", "model", "AUC", "LogLoss", "confirmed", "test AUC", "test LogLoss"),
        title="Best candidates",
        caption="AUC, LogLoss: validation block, before the subsequent block is learned; confirmed: "
        "validation AUC after it",
    )
    for row in results[results["objective"].notna()].head(rows).to_dict("records") if len(results) else []:
        confirmed = [row[f"confirmed_{key}"] for key in ("validation_auc", "test_auc", "test_logloss")]
        shown.add_row(
            str(row["number"]),
            row["model"],
            _score(row["auc"]),
            _score(row["logloss"]),
            *(_score(score) for score in confirmed),
        )
    return shown


def best_text(results: pd.DataFrame) -> str:
    """The winner of a search in a line."""
    best = results.iloc[0]
    return f"best: trial {best['number']}, {best['model']}, {candidate_text(json.loads(best['candidate']))}"


def _score(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4f}"


def candidate_text(candidate: dict[str, Any]) -> str:
    """Options and learning rate of a candidate in a line."""
    options = {**candidate["options"], "learning_rate": candidate["learning_rate"]}
    return ", ".join(f"{key} {f'{v:.2g}' if isinstance(v, float) else v}" for key, v in options.items())

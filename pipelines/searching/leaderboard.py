"""The results of a search for a terminal of 80 columns: the best trials, the winner and how sure it is."""

import json
from typing import Any

import pandas as pd
from rich.table import Column, Table

SHOWN_RIVALS = 10


def leaderboard(results: pd.DataFrame, rows: int = 10) -> Table:
    """The best trials, within 80 columns, in the order of what is shown."""
    table = _judged_table(_by_expectation(results)) if _by_judges(results) else _memory_table()
    for row in results[results["objective"].notna()].head(rows).to_dict("records") if len(results) else []:
        confirmed = [_score(row[f"confirmed_{key}"]) for key in ("validation_auc", "test_auc")]
        if _by_judges(results):
            sure = "" if pd.isna(row["near"]) else f"{row['near']:.0%}"
            score = _score(row["objective"] if pd.isna(row["score"]) else row["score"])
            last = _score(row["expected"]) if _by_expectation(results) else str(row["pieces"])
            own = [score, last, sure, f"{row['cost']:.2f}", *confirmed]
        else:
            own = [
                _score(row["auc"]),
                _score(row["logloss"]),
                *confirmed,
                _score(row["confirmed_test_logloss"]),
            ]
        table.add_row(str(row["number"]), row["model"], *own)
    return table


def _by_judges(results: pd.DataFrame) -> bool:
    return len(results) > 0 and bool((results["pieces"] > 0).any())


def _by_expectation(results: pd.DataFrame) -> bool:
    return bool(results["expected"].notna().any())


def _model() -> Column:
    return Column("model", no_wrap=True, overflow="ellipsis", max_width=16)


def _judged_table(by_expectation: bool) -> Table:
    ordering = "exp." if by_expectation else "pieces"
    about = {
        "exp.": "exp.: AUC after full training that score, architecture and the full trainings make likely",
        "pieces": "pieces: of the newest block that were learned",
    }
    return Table(
        Column("trial", no_wrap=True),
        _model(),
        *(Column(name, justify="right", no_wrap=True) for name in ("score", ordering, "near", "cost")),
        *(Column(name, no_wrap=True) for name in ("conf.", "test")),
        title="Best candidates",
        caption="score: AUC on rows of the newest block before they are learned, judges' mean; "
        f"{about[ordering]}; near: probability of being within 0.001 of the best; cost: in full trainings; "
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
        by = "by what is expected" if _by_expectation(results) else "by score"
        lines.append(f"not told apart from the first {by}: trials {named}{more}")
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

"""What judges are worth: their agreement with full training against their cost, baselines beside them.

Shape suffixes: C candidates, S seeds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from diet_ray import layout
from diet_ray.evaluation.agreement import clear_pairs, kendall, regret
from diet_ray.evaluation.judges.record import JudgeRecord
from diet_ray.seeding import numpy_generator
from diet_ray.storage import Folder
from pipelines.truth import trainings

Array = NDArray[np.floating]

ANCHORS, ANCHOR_DRAWS = 10, 200  # of the ridge; draws also of the random choice
RESAMPLES = 500
FEWEST = 5


class Known(NamedTuple):
    """Candidates with a full training, in one order."""

    names: list[str]
    table: pd.DataFrame  # a row per full training
    truth_C: Array  # mean over seeds
    error: float  # standard error of a difference of two candidates' truth; NaN with one seed
    full_seconds: float  # of a mean candidate


def known(folder: Folder, day: str, seeds: int) -> Known:
    """The candidates that were trained with all of the first `seeds` seeds.

    day: "validation", or "test" where a choice has been made.
    """
    table = pd.DataFrame(trainings(folder))
    table = table[table["seed"] < seeds]
    table["auc"] = [scores["auc"] for scores in table[day]]
    count = table.groupby("candidate", sort=False)["seed"].nunique()
    names = list(count[count == seeds].index)
    table = table[table["candidate"].isin(names)]
    auc_CS = table.pivot_table(index="candidate", columns="seed", values="auc").loc[names].to_numpy()
    between = auc_CS.std(1, ddof=1) if seeds > 1 else np.array([np.nan])
    error = float(np.sqrt(2 * np.mean(between**2) / seeds))
    return Known(names, table, auc_CS.mean(1), error, float(table["seconds"].mean()))


def judge_table(folder: Folder, day: str, seeds: int) -> pd.DataFrame:
    """One row per score: tau with its 95 % interval over candidates, clear pairs, regret at 1 and 3, cost.

    Columns: judge, cost (of all candidates, in full trainings of one per candidate), tau, tau_low, tau_high,
    clear, regret, regret3, candidates. The cost of the reference is shared by the candidates and included.
    """
    truth = known(folder, day, seeds)
    rows = [
        *_judges(folder, truth),
        *_stopped(truth),
        _ceiling(folder, truth, day),
        _ridge(truth),
        _random(truth),
    ]
    return pd.DataFrame([row for row in rows if row]).sort_values("cost", ignore_index=True)


def judged_scores(folder: Folder, day: str, seeds: int) -> pd.DataFrame:
    """Columns candidate, full (truth), error (of it; NaN with one seed), and the last AUC of each judge that
    has scored them all."""
    truth = known(folder, day, seeds)
    found = pd.DataFrame({"candidate": truth.names, "full": truth.truth_C, "error": truth.error / np.sqrt(2)})
    for judge in _judge_names(folder):
        records = [_record(folder, judge, name) for name in truth.names]
        if all(records):
            found[judge] = [record.auc[-1] for record in records if record]
    return found


def _measured(truth: Known, judge: str, score_C: Array, cost: float) -> dict[str, Any]:
    draw = numpy_generator(0, "judge table", judge)
    drawn = [draw.integers(len(score_C), size=len(score_C)) for _ in range(RESAMPLES)]
    # A judge that gives all the same score has no tau, and no resample of it has one.
    tied = not np.ptp(score_C)
    tau = [kendall(truth.truth_C[rows], score_C[rows]) for rows in drawn if not tied]
    low, high = np.nanquantile(tau, [0.025, 0.975]) if tau else (np.nan, np.nan)
    return {
        "judge": judge,
        "cost": cost,
        "tau": kendall(truth.truth_C, score_C),
        "tau_low": float(low),
        "tau_high": float(high),
        "clear": clear_pairs(truth.truth_C, score_C, truth.error),
        "regret": regret(truth.truth_C, score_C),
        "regret3": regret(truth.truth_C, score_C, 3),
        "candidates": len(score_C),
    }


def _judges(folder: Folder, truth: Known) -> list[dict[str, Any]]:
    """Every judge after a quarter, a half and all of its pieces, and cold and mixed together.

    Together once standardised, as docs/search-criterion.md has it, once as the search takes them: their mean.
    """
    rows, scores, costs = [], {}, {}
    for judge in _judge_names(folder):
        records = [_record(folder, judge, name) for name in truth.names]
        if not all(records):
            continue
        pieces = min(record.pieces for record in records if record)
        shared = _reference_seconds(folder) / len(records) if judge in ("mixed", "warm") else 0.0
        for piece in sorted({max(1, pieces // 4), max(1, pieces // 2), pieces}):
            score_C = np.array([record.auc[piece - 1] for record in records if record])
            seconds = np.mean([record.seconds * piece / pieces for record in records if record]) + shared
            named = judge if piece == pieces else f"{judge}, {piece} of {pieces} pieces"
            cost = float(seconds / truth.full_seconds)
            rows.append(_measured(truth, named, score_C, cost))
            scores[judge, piece], costs[judge, piece] = score_C, cost
    both = sorted(piece for judge, piece in scores if judge == "cold" and ("mixed", piece) in scores)
    for piece in both:
        cold_C, mixed_C = scores["cold", piece], scores["mixed", piece]
        cost = costs["cold", piece] + costs["mixed", piece]
        after = "" if piece == both[-1] else f", {piece} of {both[-1]} pieces"
        together = _standardised(cold_C) + _standardised(mixed_C)
        rows.append(_measured(truth, f"cold + mixed, standardised{after}", together, cost))
        rows.append(_measured(truth, f"cold + mixed{after}", cold_C + mixed_C, cost))
    return rows


def _judge_names(folder: Folder) -> list[str]:
    return sorted({path.split("/")[-2] for path in folder.fs.glob(f"{folder.root}/judged/*/*.json")})


def _record(folder: Folder, judge: str, candidate: str) -> JudgeRecord | None:
    path = layout.judged(judge, candidate, 0)
    return JudgeRecord.model_validate(folder.read_json(path)) if folder.exists(path) else None


def _reference_seconds(folder: Folder) -> float:
    return float(folder.read_json(layout.TRUTH_REFERENCE_COST)["seconds"])


def _standardised(score_C: Array) -> Array:
    return (score_C - score_C.mean()) / (score_C.std() or 1.0)


def _stopped(truth: Known) -> list[dict[str, Any]]:
    """Full training stopped on the way: the AUC of the last pieces learned so far (Isik et al.)."""
    first = truth.table[truth.table["seed"] == 0].set_index("candidate").loc[truth.names]
    curves = np.array([[auc for block in own.values() for auc in block] for own in first["progressive_auc"]])
    rows = []
    for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2):
        seen = max(1, round(share * curves.shape[1]))
        score_C = curves[:, max(0, seen - max(1, seen // 2)) : seen].mean(1)
        rows.append(
            _measured(truth, f"stopped after {share:.0%} of the stream", score_C, seen / curves.shape[1])
        )
    return rows


def _ceiling(folder: Folder, truth: Known, day: str) -> dict[str, Any]:
    """One full training, seed 0, by the validation day, against the other seeds."""
    scores = truth.table.pivot_table(index="candidate", columns="seed", values="auc").loc[truth.names]
    if scores.shape[1] < 2:
        return {}
    validation = truth.table.assign(auc=[own["auc"] for own in truth.table["validation"]])
    own_C = validation[validation["seed"] == 0].set_index("candidate").loc[truth.names]["auc"].to_numpy()
    others = truth._replace(truth_C=scores.drop(columns=0).mean(axis=1).to_numpy())
    return _measured(others, "full training, another seed", own_C, 1.0)


def _ridge(truth: Known) -> dict[str, Any]:
    """Ridge regression on architecture and log learning rate with ANCHORS fully trained candidates."""
    if len(truth.names) < ANCHORS + FEWEST:
        return {}
    first = truth.table[truth.table["seed"] == 0].set_index("candidate").loc[truth.names]
    features = pd.get_dummies(pd.Series([config["name"] for config in first["config"]])).astype(float)
    features["rate"] = [np.log(config["learning_rate"]) for config in first["config"]]
    x_CK = features.to_numpy()

    def guess(chosen: NDArray[np.int64]) -> Array:
        model = Ridge(alpha=1.0).fit(x_CK[chosen], truth.truth_C[chosen])
        score_C = model.predict(x_CK)
        score_C[chosen] = truth.truth_C[chosen]  # their truth is known
        return np.asarray(score_C)

    return _mean_over_draws(truth, f"ridge, {ANCHORS} anchors", guess, ANCHORS)


def _random(truth: Known) -> dict[str, Any]:
    """An eighth of the candidates, drawn at random and fully trained; the others share the last place."""
    count = max(1, len(truth.names) // 8)

    def guess(chosen: NDArray[np.int64]) -> Array:
        score_C = np.full(len(truth.names), truth.truth_C.min() - 1)
        score_C[chosen] = truth.truth_C[chosen]
        return score_C

    return _mean_over_draws(truth, f"{count} random, fully trained", guess, count)


def _mean_over_draws(
    truth: Known, judge: str, guess: Callable[[NDArray[np.int64]], Array], count: int
) -> dict[str, Any]:
    draw, total = numpy_generator(0, "judge table", judge), len(truth.names)
    guesses = [guess(draw.choice(total, count, replace=False)) for _ in range(ANCHOR_DRAWS)]
    tau = np.array([kendall(truth.truth_C, score_C) for score_C in guesses])
    clear = [clear_pairs(truth.truth_C, score_C, truth.error) for score_C in guesses]
    return {
        "judge": judge,
        "cost": count / total,
        "tau": float(tau.mean()),
        "tau_low": float(np.quantile(tau, 0.025)),
        "tau_high": float(np.quantile(tau, 0.975)),
        "clear": float(np.mean(clear)),
        "regret": float(np.mean([regret(truth.truth_C, score_C) for score_C in guesses])),
        "regret3": float(np.mean([regret(truth.truth_C, score_C, 3) for score_C in guesses])),
        "candidates": total,
    }

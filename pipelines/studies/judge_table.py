"""What judges are worth: their agreement with full training against their cost, baselines beside them.

Shape suffixes: C candidates.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from diet_ray import layout
from diet_ray.evaluation.judges.record import JudgeRecord
from diet_ray.storage import Folder
from pipelines.studies.judge_baselines import ceiling, random, ridge, stopped, trained_after
from pipelines.studies.known_truth import Array, Judged, Known, known, measured

SEARCH = ("half", "cold, 4 of 8 pieces")  # the judge of a search, or the same by another name


def judge_table(folder: Folder, day: str, seeds: int) -> pd.DataFrame:
    """One row per score: tau with its 95 % interval over candidates, clear pairs, regret at 1 and 3, cost.

    Columns: judge, cost (of all candidates, in full trainings of one per candidate), tau, tau_low, tau_high,
    clear, regret, regret3, candidates. Cost counts the rows that are learned, for the machine that learned
    them differs; the reference's are shared by the candidates and included. All are means over which seed of
    full training can be bought; the others are the truth.
    """
    truths = [known(folder, day, seeds, bought) for bought in range(seeds)]
    scores = judges_scores(folder, truths[0])  # the same, whichever seed is bought
    rows = [row for truth in truths for row in _rows(truth, scores)]
    means = pd.DataFrame(rows).groupby("judge", sort=False).mean().reset_index()
    return means.sort_values("cost", ignore_index=True, kind="stable")


def _rows(truth: Known, scores: dict[str, Judged]) -> Iterator[dict[str, Any]]:
    for name, judged in scores.items():
        yield measured(truth, name, *judged)
    for name in [name for name in SEARCH if name in scores][:1]:
        yield from trained_after(truth, name, scores[name])
    for baseline in (stopped, ceiling, ridge, random):
        yield from baseline(truth)


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


def judges_scores(folder: Folder, truth: Known) -> dict[str, Judged]:
    """Every judge after a quarter, a half and all of its pieces, and cold and mixed together.

    Together once standardised, as docs/search-criterion.md has it, once as the search takes them: their mean.
    """
    scores: dict[str, Judged] = {}
    both: dict[int, list[Judged]] = {}
    for judge in _judge_names(folder):
        own = [record for name in truth.names if (record := _record(folder, judge, name))]
        if len(own) < len(truth.names):
            continue
        pieces = min(record.pieces for record in own)
        shared = _reference_rows(folder) / len(own) if judge in ("mixed", "warm") else 0.0
        for piece in sorted({max(1, pieces // 4), max(1, pieces // 2), pieces}):
            rows = np.mean([record.rows * piece / pieces for record in own]) + shared
            score_C = np.array([record.auc[piece - 1] for record in own])
            judged = Judged(score_C, float(rows / truth.full_rows))
            scores[part_name(judge, piece, pieces)] = judged
            if judge in ("cold", "mixed"):
                both.setdefault(piece, []).append(judged)
    whole = max(both, default=0)
    for piece, pair in both.items():
        if len(pair) == 2:
            cost = pair[0].cost + pair[1].cost
            together = sum(_standardised(judged.score_C) for judged in pair)
            name = part_name("cold + mixed, standardised", piece, whole)
            scores[name] = Judged(np.asarray(together), cost)
            mean_C = (pair[0].score_C + pair[1].score_C) / 2
            scores[part_name("cold + mixed", piece, whole)] = Judged(mean_C, cost)
    return scores


def part_name(judge: str, piece: int, pieces: int) -> str:
    return judge if piece == pieces else f"{judge}, {piece} of {pieces} pieces"


def _judge_names(folder: Folder) -> list[str]:
    return sorted({path.split("/")[-2] for path in folder.fs.glob(f"{folder.root}/judged/*/*.json")})


def _record(folder: Folder, judge: str, candidate: str) -> JudgeRecord | None:
    path = layout.judged(judge, candidate, 0)
    return JudgeRecord.model_validate(folder.read_json(path)) if folder.exists(path) else None


def _reference_rows(folder: Folder) -> int:
    return int(folder.read_json(layout.TRUTH_REFERENCE_COST)["rows"])


def _standardised(score_C: Array) -> Array:
    return (score_C - score_C.mean()) / (score_C.std() or 1.0)

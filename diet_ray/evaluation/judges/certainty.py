"""How sure is a search of its winner?

Scores of judges hang on the rows that were judged (a paired bootstrap over groups of rows, paired.py), on the
seed, and on how far a judge agrees with full training at all. The first is drawn anew here, the others are
normal errors: the seed's is measured on the candidates of this search that have several, the agreement's on
candidates whose full training is known, here or elsewhere.

Shape suffixes: C candidates, J judges, S seeds, G groups of rows, B draws.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diet_ray.evaluation.judges.paired import drawn_groups
from diet_ray.evaluation.judges.record import JudgeRecord

Array = NDArray[np.floating]

DRAWS = 4000
NEAR = 0.001  # AUC: what counts as being as good as the best
USUAL_TAU = 0.5  # of judges with full training, where no anchors tell (docs/results.md)
UNDECIDED = 0.05  # who beats the winner in more than this share of the draws cannot be told from it


class Noise(NamedTuple):
    """Deviations of a candidate's score, in AUC."""

    seed: float  # of the mean over judges under one seed; NaN where it was not measured
    agreement: float  # of the truth around what the judges predict


def usual_agreement(score_C: Array, tau: float = USUAL_TAU) -> float:
    """Deviation of the truth around scores that rank it with Kendall's `tau`, from the scores' own spread.

    For normal errors tau is 2/pi arcsin(r) of the correlation r, and the truth's error r's complement. Errors
    of seeds and rows are in it, since scores with them were what tau was measured on.
    """
    correlation = np.sin(np.pi / 2 * tau)
    return float(np.std(score_C) * np.sqrt(1 / correlation**2 - 1))


class Certainty(NamedTuple):
    """What the draws say of the candidates, in the order in which they were given."""

    score_C: Array
    deviation_C: Array  # of a score, over rows, seeds and agreement
    near_C: Array  # probability that a candidate is within NEAR of the best
    winner: int
    rivals: list[int]  # who cannot be told from the winner, the best first


def mean_score(records: Sequence[JudgeRecord], weights: Mapping[str, float]) -> float:
    """The weighted mean over judges of the mean over seeds; judges without a weight count 1."""
    return float(drawn_scores(records, weights, np.ones((1, len(records[0].influence))))[0])


def drawn_scores(records: Sequence[JudgeRecord], weights: Mapping[str, float], count_BG: Array) -> Array:
    """The score of one candidate under draws of groups of rows; [B]."""
    total_B, weight = np.zeros(len(count_BG)), 0.0
    for judge in dict.fromkeys(record.judge for record in records):
        own = [record.score.drawn(count_BG) for record in records if record.judge == judge]
        total_B += weights.get(judge, 1.0) * np.mean(own, axis=0)
        weight += weights.get(judge, 1.0)
    return total_B / weight


def seed_deviation(judged: Sequence[Sequence[JudgeRecord]], weights: Mapping[str, float]) -> float:
    """Pooled deviation between seeds of one candidate's score; NaN where none has several seeds."""
    squares, freedom = 0.0, 0
    for records in judged:
        seeds = sorted({record.seed for record in records})
        of_seed = [mean_score([r for r in records if r.seed == seed], weights) for seed in seeds]
        squares += float(np.sum((np.array(of_seed) - np.mean(of_seed)) ** 2))
        freedom += len(seeds) - 1
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")


def certainty(
    judged: Sequence[Sequence[JudgeRecord]],
    noise: Noise,
    draw: np.random.Generator,
    weights: Mapping[str, float] | None = None,
    slope: float = 1.0,
) -> Certainty:
    """Compare candidates that all saw the same rows.

    Args:
        judged: per candidate its records, one per judge and seed.
        noise: errors besides those of the rows.
        draw: of the bootstrap.
        weights: of judges; equal where left out.
        slope: AUC after full training per AUC of the score (anchors.py), in which NEAR is meant.

    Raises:
        ValueError: there is no candidate.
    """
    if not judged:
        raise ValueError("no candidate was judged")
    weights = weights or {}
    count_BG = drawn_groups(DRAWS, len(judged[0][0].influence), draw)
    score_BC = np.stack([drawn_scores(records, weights, count_BG) for records in judged], 1)
    score_C = np.array([mean_score(records, weights) for records in judged])
    seeds_C = np.array([len({record.seed for record in records}) for records in judged])
    seed = 0.0 if np.isnan(noise.seed) else noise.seed  # where it was not measured, agreement has it
    seed_C = slope * seed / np.sqrt(seeds_C)
    error_C = np.sqrt(seed_C**2 + noise.agreement**2)
    score_BC = slope * score_BC + draw.normal(size=score_BC.shape) * error_C
    winner = int(score_C.argmax())
    near_C, rival_C = near_and_rivals(score_BC, winner)
    rivals = [int(c) for c in np.argsort(-score_C) if rival_C[c]]
    # Of the difference to the mean candidate, in which what the rows do to all of them cancels.
    deviation_C = (score_BC - score_BC.mean(1, keepdims=True)).std(0)
    return Certainty(score_C, deviation_C, near_C, winner, rivals)


def near_and_rivals(score_BC: Array, winner: int) -> tuple[Array, NDArray[np.bool_]]:
    """From draws of all: how often each is within NEAR of the best, and who may well beat the winner."""
    near_C = (score_BC >= score_BC.max(1, keepdims=True) - NEAR).mean(0)
    beats_C = (score_BC > score_BC[:, [winner]]).mean(0)
    return near_C, beats_C > UNDECIDED

"""Calibrate judges on candidates whose full training is known.

An organisation has a few models that were trained fully. Judged like any candidate, they tell whether the
judges order them at all, how much each judge should count, how far a difference of scores is a difference
after full training, and how large the error of that is.

Shape suffixes: A anchors, J judges.
"""

import json
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import kendalltau

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.storage import arrow_file, file_at
from diet_ray.strict import config_error

Array = NDArray[np.floating]

FEWEST = 4  # anchors that calibrate anything
PRIOR = 10.0  # anchors that it takes to move the weights half way from equal ones
CHANCE = 0.1  # largest p value of tau at which judges are believed


class Anchor(NamedTuple):
    """A candidate and its AUC after full training."""

    candidate: CandidateConfig
    auc: float


class Calibration(NamedTuple):
    """What the anchors say of the judges."""

    weights: dict[str, float]  # of the judges; their mean is 1
    tau: dict[str, float]  # of each judge with the truth
    combined_tau: float
    p_value: float  # that judges that know nothing reach combined_tau
    slope: float  # AUC after full training per AUC of the weighted score
    agreement: float  # deviation of the truth around that line; NaN where it cannot be told

    @property
    def believed(self) -> bool:
        return self.combined_tau > 0 and self.p_value <= CHANCE


def read_anchors(file: str) -> list[Anchor]:
    """Anchors of a Parquet file with columns `candidate` (JSON, as in results.parquet) and `auc`.

    Raises:
        ConfigError: the file lacks a column or has too few rows, or a candidate is malformed.
    """
    folder, name = file_at(file, "results.parquet")
    try:
        table = pq.read_table(arrow_file(folder.read(name))).to_pandas()
    except ValueError as broken:
        raise ConfigError(f"--anchors {file} is not a Parquet file: {broken}") from broken
    for column in ("candidate", "auc"):
        if column not in table:
            raise ConfigError(
                f"--anchors {file} has no column {column!r}: candidate is the JSON of a candidate, auc its "
                "AUC after full training"
            )
    table = table[table["auc"].notna()]
    if len(table) < FEWEST:
        raise ConfigError(f"--anchors {file} has {len(table)} candidates with an AUC; at least {FEWEST}")
    rows = zip(table["candidate"], table["auc"], strict=True)
    return [Anchor(_candidate(text, file), float(auc)) for text, auc in rows]


def _candidate(text: str, file: str) -> CandidateConfig:
    try:
        return CandidateConfig.model_validate(json.loads(text))
    except ValidationError as wrong:
        raise config_error(wrong, f"a candidate of --anchors {file}") from wrong
    except (TypeError, ValueError) as broken:
        raise ConfigError(f"--anchors {file}: {str(text)[:60]!r} is not the JSON of a candidate") from broken


def calibrate(truth_A: Array, score_AJ: Array, judges: list[str]) -> Calibration:
    """Weigh the judges by a ridge regression of the truth on their scores that shrinks to equal weights.

    Args:
        truth_A: AUC after full training.
        score_AJ: the judges' AUC of the same candidates.
        judges: names of the columns.

    Raises:
        ValueError: fewer than FEWEST anchors.
    """
    if len(truth_A) < FEWEST:
        raise ValueError(f"{len(truth_A)} anchors, at least {FEWEST} are needed")
    weight_J = _weights(truth_A, score_AJ)
    combined_A = score_AJ @ weight_J / weight_J.sum()
    tau = kendalltau(truth_A, combined_A, alternative="greater")
    slope, agreement = _line(truth_A, combined_A)
    each = [float(kendalltau(truth_A, own_A).statistic) for own_A in score_AJ.T]
    return Calibration(
        dict(zip(judges, map(float, weight_J), strict=True)),
        dict(zip(judges, each, strict=True)),
        float(tau.statistic),
        float(tau.pvalue),
        slope,
        agreement,
    )


def _weights(truth_A: Array, score_AJ: Array) -> Array:
    """Non-negative, of mean 1; equal where nothing can be told."""
    judges = score_AJ.shape[1]
    if judges == 1 or not np.ptp(truth_A) or not np.ptp(score_AJ, 0).all():
        return np.ones(judges)
    spread_J = score_AJ.std(0)
    z_AJ, target_A = (score_AJ - score_AJ.mean(0)) / spread_J, (truth_A - truth_A.mean()) / truth_A.std()
    equal_J = np.full(judges, 1 / judges)
    gram_JJ = z_AJ.T @ z_AJ + PRIOR * np.eye(judges)
    weight_J = np.linalg.solve(gram_JJ, z_AJ.T @ target_A + PRIOR * equal_J).clip(min=0)
    weight_J = weight_J / spread_J  # of the scores themselves
    return weight_J / weight_J.mean() if weight_J.any() else np.ones(judges)


def _line(truth_A: Array, score_A: Array) -> tuple[float, float]:
    """Slope of the truth on a score, not below 0, and the deviation around the line."""
    spread = score_A - score_A.mean()
    if not spread.any():
        return 1.0, float("nan")
    slope = max(0.0, float(spread @ truth_A / (spread @ spread)))
    error_A = truth_A - truth_A.mean() - slope * spread
    return slope, float(np.sqrt(error_A @ error_A / (len(truth_A) - 2)))

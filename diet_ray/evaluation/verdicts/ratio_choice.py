"""Which ratio to choose: the smallest that is not visibly worse than the best.

Shape suffixes: P pairs of a candidate and a seed, R ratios.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diet_ray.evaluation.verdicts.gaps import Gap, mean_gap

RESAMPLES = 2000


class RatioChoice(NamedTuple):
    """A recommended ratio and how certain it is."""

    ratio: float
    best: float  # the ratio with the highest mean AUC
    gap: Gap  # AUC of the recommended one minus that of the best; noise over pairs
    share: float  # of bootstrap resamples over pairs that recommend the same
    low: float  # 95 % of the resamples recommend a ratio from low
    high: float  # to high

    @property
    def text(self) -> str:
        """The recommendation with its uncertainty."""
        if self.gap.error is None:
            return (
                f"Highest AUC at a ratio of {self.best:.1%}; one candidate and one seed tell no noise: add "
                "--seeds or candidates for a recommendation."
            )
        behind = (
            "it has the highest AUC"
            if self.ratio == self.best
            else f"AUC {self.gap.mean:+.4f} ± {self.gap.error:.4f} against {self.best:.1%}, the best"
        )
        span = f", 95% lie from {self.low:.1%} to {self.high:.1%}" if self.low < self.high else ""
        return f"Recommended ratio: {self.ratio:.1%} ({behind}; {self.share:.0%} of resamples agree{span})."


def choose_ratio(ratio_R: NDArray, auc_PR: NDArray, draw: np.random.Generator) -> RatioChoice:
    """The smallest ratio whose mean AUC is within a standard error of the best one's (paired by candidate
    and seed), as one picks the size of a model by the one-standard-error rule (Breiman et al. 1984).

    Raises ValueError where a value is missing.
    """
    order = np.argsort(ratio_R)
    ratio_R, auc_PR = np.asarray(ratio_R, float)[order], np.asarray(auc_PR, float)[:, order]
    if auc_PR.ndim != 2 or not auc_PR.size or not np.isfinite(auc_PR).all():
        raise ValueError("AUCs of every ratio are needed for each pair")
    chosen, best = _chosen(auc_PR)
    pairs = len(auc_PR)
    resampled = [_chosen(auc_PR[draw.integers(pairs, size=pairs)])[0] for _ in range(RESAMPLES)]
    low, high = np.quantile(ratio_R[resampled], [0.025, 0.975], method="nearest")
    gap = mean_gap(auc_PR[:, chosen] - auc_PR[:, best])
    share = float(np.mean(np.array(resampled) == chosen))
    return RatioChoice(float(ratio_R[chosen]), float(ratio_R[best]), gap, share, float(low), float(high))


def _chosen(auc_PR: NDArray) -> tuple[int, int]:
    """Places of the recommended and of the best ratio."""
    best = int(auc_PR.mean(axis=0).argmax())
    behind_PR = auc_PR[:, [best]] - auc_PR
    error_R = behind_PR.std(axis=0, ddof=1) / len(auc_PR) ** 0.5 if len(auc_PR) > 1 else 0.0
    return int((behind_PR.mean(axis=0) <= error_R).argmax()), best

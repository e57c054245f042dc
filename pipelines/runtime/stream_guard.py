"""Looks at reference and memory before a stream learns a block: are they still good for it?"""

from typing import Any

import numpy as np
import ray

from actors.connection import user_errors
from diet_ray.errors import DataError
from diet_ray.log.dataset import Block
from diet_ray.log.stream.config import StreamConfig
from diet_ray.runs.metrics import MeanScores
from diet_ray.runs.run import Run
from diet_ray.runs.stage import ProbeScores
from diet_ray.training.metrics import Scores
from pipelines.runtime.progress import console

RECENT = 5  # blocks whose progressive AUC the next one is compared with


class StreamGuard:
    """Scores the reference, and every few stages the memory, on a block before they learn from it.

    Stops the stream where the reference has degraded.
    """

    def __init__(self, run: Run, config: StreamConfig) -> None:
        progressive = [record.metrics.progressive for record in run.records]
        self.recent = [scores.auc for scores in progressive if scores][-RECENT:]
        self.config = config

    def examine(self, reference: Any, block: Block, stage: int) -> MeanScores | None:
        """Progressive scores of the reference on a block.

        Raises:
            DataError: where AUC fell below the mean of the recent blocks by more than `max_fall` and chance.
        """
        if stage == 1:
            return None
        with user_errors():
            scores = _means(ray.get(reference.progressive.remote(stage)))
        if scores is None:
            return None
        usual = float(np.mean(self.recent)) if len(self.recent) == RECENT else None
        chance = 3 * auc_deviation(block.label_groups)
        if usual is not None and scores.auc < usual - self.config.max_fall - chance:
            raise DataError(
                f"progressive AUC of block {block.name} is {scores.auc:.4f}, the mean of the {RECENT} blocks "
                f"before is {usual:.4f}: the reference or the log has degraded. Committed stages are kept; "
                "--skip-block continues without this block, a larger --stream.max-fall accepts the loss"
            )
        self.recent = [*self.recent, scores.auc][-RECENT:]
        return scores

    def probe(self, distiller: Any, stage: int) -> ProbeScores | None:
        """Every `probe_every` stages: how well the memory before it prepares for this block."""
        every = self.config.probe_every
        if not every or stage == 1 or stage % every:
            return None
        try:
            with user_errors():
                memory, newest = (_means(scores) for scores in ray.get(distiller.probe.remote(stage)))
        except DataError as diverged:
            console.print(f"[yellow]the probe of stage {stage} has no score: {diverged}")
            return None
        return ProbeScores(memory, newest) if memory and newest else None


def auc_deviation(label_groups: dict[int, int]) -> float:
    """Standard deviation of the mean AUC of a model that knows nothing, on a block of these label counts.

    Hanley and McNeil 1982; mean over the tasks that have both labels.
    """
    rows, deviations = sum(label_groups.values()), []
    for task in range(max(label_groups, default=0).bit_length()):
        positive = sum(count for group, count in label_groups.items() if group >> task & 1)
        if 0 < positive < rows:
            deviations.append(np.sqrt((rows + 1) / (12 * positive * (rows - positive))))
    return float(np.mean(deviations)) if deviations else 0.0


def _means(scores: Scores) -> MeanScores | None:
    """None where no task has both labels."""
    return None if np.isnan(scores.auc) else MeanScores(auc=scores.auc, logloss=scores.logloss)

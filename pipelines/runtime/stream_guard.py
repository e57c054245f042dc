"""What is looked at before a stream learns a block: is the reference, is the memory still good for it?"""

from typing import Any

import numpy as np
import ray

from actors.connection import user_errors
from diet_ray.errors import DataError
from diet_ray.log.dataset import Block
from diet_ray.log.stream.log import StreamConfig
from diet_ray.runs.run import Run
from pipelines.runtime.progress import console

RECENT = 5  # blocks whose progressive AUC the next one is held against


class Watch:
    """Scores the reference, and now and then the memory, on a block before they know it.

    Stops the stream where the reference has got worse.
    """

    def __init__(self, run: Run, config: StreamConfig) -> None:
        known = [record.metrics.get("progressive", {}).get("auc") for record in run.records]
        self.recent = [auc for auc in known if auc is not None][-RECENT:]
        self.config = config

    def __call__(self, reference: Any, block: Block, stage: int) -> dict[str, Any]:
        if stage == 1:
            return {}
        with user_errors():
            scores = ray.get(reference.progressive.remote(stage))
        if np.isnan(scores.auc):
            return {}
        usual = float(np.mean(self.recent)) if len(self.recent) == RECENT else None
        chance = 3 * auc_deviation(block.label_groups, len(scores.tasks))
        if usual is not None and scores.auc < usual - self.config.max_fall - chance:
            raise DataError(
                f"progressive AUC of block {block.name} is {scores.auc:.4f}, {usual:.4f} before: the "
                "reference or the log has gone astray. Everything committed stands; --skip-block goes on "
                "without this block, --stream.max-fall lets AUC fall further"
            )
        self.recent = [*self.recent, scores.auc][-RECENT:]
        return {"progressive": {"auc": scores.auc, "logloss": scores.logloss}}

    def probe(self, distiller: Any, stage: int) -> dict[str, Any]:
        """Every `probe_every` stages: how well the memory before this block prepares for it."""
        every = self.config.probe_every
        if not every or stage == 1 or stage % every:
            return {}
        try:
            with user_errors():
                scores = ray.get(distiller.probe.remote(stage))
        except DataError as diverged:
            console.print(f"[yellow]the probe of stage {stage} tells nothing: {diverged}")
            return {}
        if np.isnan(scores.auc):
            return {}
        return {"probe": {"auc": scores.auc, "logloss": scores.logloss}}


def auc_deviation(label_groups: dict[int, int], tasks: int) -> float:
    """How far the mean AUC of a block of this size lies off by chance.

    One standard deviation of a model that knows nothing (Hanley and McNeil 1982), mean over the tasks that
    have both labels.
    """
    rows, found = sum(label_groups.values()), []
    for task in range(tasks):
        positive = sum(count for group, count in label_groups.items() if group >> task & 1)
        if 0 < positive < rows:
            found.append(np.sqrt((rows + 1) / (12 * positive * (rows - positive))))
    return float(np.mean(found)) if found else 0.0

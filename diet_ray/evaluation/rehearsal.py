"""How much rows of a memory should weigh beside the rows of the subsequent block.

How fast a log ages decides it: where the past still holds, heavier rehearsal keeps more of what the memory
taught; where it does not, it holds a candidate back. So two candidates try, one with batch norms and
one without: a single one is misled by what suits itself.
"""

import copy

import numpy as np

from diet_ray.config import CandidateConfig
from diet_ray.evaluation.cell import Setting
from diet_ray.models.examples import Examples
from diet_ray.training.checkpoint import restore_tables
from diet_ray.training.learning import Rehearsal, evaluate_block, learn_block

WEIGHTS = (1.0, 3.0)
JUDGES = (CandidateConfig(name="finalnet"), CandidateConfig(name="dcn"))
SEED = 0


def rehearsal_scores(reduced: Examples, checkpoint: bytes, setting: Setting) -> dict[float, float]:
    """Validation AUC after the subsequent block, mean of the judges, by the weight of the rehearsal."""
    log, fit = setting.log, setting.fit
    scores: dict[float, list[float]] = {weight: [] for weight in WEIGHTS}
    for judge in JUDGES:
        fitted = setting.learner(judge, SEED)
        restore_tables(fitted, checkpoint)
        fitting = setting.fitting(fitted, judge, reduced, SEED)
        fitting.run()
        for weight in WEIGHTS:
            learner = copy.deepcopy(fitted)
            rehearsal = Rehearsal(fitting.reduced, fit.rehearsal, weight, SEED)
            learn_block(learner, log, log.blocks["subsequent"], setting.training, SEED, rehearsal=rehearsal)
            scores[weight].append(evaluate_block(learner, log, log.blocks["validation"]).auc)
    return {weight: float(np.mean(found)) for weight, found in scores.items()}

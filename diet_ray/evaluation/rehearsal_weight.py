"""How heavily rows of a memory should be rehearsed while a candidate learns the subsequent block.

How fast a log ages decides it: where the past still holds, a higher weight preserves more of what the memory
taught; where it does not, it holds a candidate back. Two candidates try, one with batch norms and one
without: a single one is misled by what suits itself.
"""

import copy

import numpy as np

from diet_ray.config import CandidateConfig
from diet_ray.evaluation.cell import Setting
from diet_ray.models.examples import Examples
from diet_ray.training.checkpoints.restoring import restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.embedding import score_block
from diet_ray.training.learning import learn_block
from diet_ray.training.rehearsal import Rehearsal

WEIGHTS = (1.0, 3.0)
JUDGES = (CandidateConfig(name="finalnet"), CandidateConfig(name="dcn"))
SEED = 0


def rehearsal_scores(reduced: Examples, checkpoint: StoredCheckpoint, setting: Setting) -> dict[float, float]:
    """Validation AUC after the subsequent block, mean over the judges, by rehearsal weight."""
    log, fit = setting.log, setting.fit
    scores: dict[float, list[float]] = {weight: [] for weight in WEIGHTS}
    for judge in JUDGES:
        fitted = setting.recommender(judge, SEED)
        restore_tables(fitted, checkpoint)
        training = setting.candidate_training(fitted, judge, reduced, SEED)
        training.run()
        for weight in WEIGHTS:
            recommender = copy.deepcopy(fitted)
            rehearsal = Rehearsal(training.reduced, share=fit.rehearsal, weight=weight, seed=SEED)
            subsequent = log.blocks["subsequent"]
            learn_block(recommender, log, subsequent, setting.training, SEED, rehearsal=rehearsal)
            scores[weight].append(score_block(recommender, log, log.blocks["validation"]).auc)
    return {weight: float(np.mean(aucs)) for weight, aucs in scores.items()}

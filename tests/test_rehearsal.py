"""The weight of rehearsal is what a candidate does best with on the validation block."""

import pytest
import torch

from diet_ray.distillation.memory_update import new_reference
from diet_ray.evaluation.cell import Setting, run_cell
from diet_ray.evaluation.rehearsal_weight import JUDGES, SEED, WEIGHTS, rehearsal_scores
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples
from diet_ray.training.learning import learn_block, new_recommender
from tests.stored_checkpoint import stored
from tests.tiny_run import FIT, TINY


def test_each_weight_is_scored_as_a_cell_of_that_weight(drift_log: str) -> None:
    """From one fit, copied: no weight learns from what another left behind."""
    log = PreparedLog.open(drift_log)
    reference = new_recommender(new_reference(log, TINY, "reference"), log, TINY.dim, TINY.training)
    learn_block(reference, log, log.history[0], TINY.training, 0)
    checkpoint = stored(reference)
    memory = Examples(torch.randn(100, len(log.fields), TINY.dim) / 10, torch.rand(100, 3))
    setting = Setting(log, TINY.dim, TINY.training, FIT)
    found = rehearsal_scores(memory, checkpoint, setting)
    assert len(set(found.values())) == len(WEIGHTS)
    for weight, auc in found.items():
        own = setting._replace(fit=FIT.model_copy(update={"rehearsal_weight": weight}))
        cells = [run_cell("diet", judge, SEED, own, checkpoint, memory)[1] for judge in JUDGES]
        assert sum(cell.validation.auc for cell in cells) / len(cells) == pytest.approx(auc, abs=1e-12)
        assert {cell.rehearsal_weight for cell in cells} == {weight}

"""What a GPU computes is what a CPU computes: run by `make test-gpu`, and only where there is a GPU.

Up to rounding, and from the same rows: rounding grows from step to step, scores that are nearly level then
change places, and another row chosen is another memory.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from actors.placement import ResourceConfig
from diet_ray.config import CandidateConfig
from diet_ray.distillation.baselines import random_rows
from diet_ray.distillation.memory import Memory, fuse
from diet_ray.distillation.memory_update import fused_memory, new_reference, optimised_memory
from diet_ray.distillation.scored_rows import EmbeddedRows, LocalScorer, PartScorer
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import dense_params, loss_of
from diet_ray.training.checkpoints.restoring import restore
from diet_ray.training.learning import learn_block
from diet_ray.training.recommender import Recommender
from pipelines.distill import distill
from pipelines.evaluate import evaluate
from tests.stored_checkpoint import stored
from tests.test_stage import untrained
from tests.tiny_run import FIT, TINY

CPU, GPU = torch.device("cpu"), torch.device("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


class Bench:
    """A log, and learners that are made on the device at hand."""

    def __init__(self, log: str, patch: pytest.MonkeyPatch) -> None:
        self.log, self.patch = PreparedLog.open(log), patch

    def learner(self, device: torch.device) -> Recommender:
        self.patch.setattr("diet_ray.training.learning.default_device", lambda: device.type)
        return untrained(self.log, TINY)

    def learned(self, device: torch.device) -> Recommender:
        """The reference after the first block."""
        learner = self.learner(device)
        learn_block(learner, self.log, self.log.block(1), TINY.training, 0)
        return learner


@pytest.fixture
def bench(drift_log: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(drift_log, monkeypatch)


def assert_close(gpu: Tensor, cpu: Tensor, within: float) -> None:
    """But for one in a hundred: of a gradient that is all rounding Adam makes a step as of any other."""
    assert (gpu.cpu() - cpu.cpu()).abs().quantile(0.99) < within


def test_a_reference_learns_the_same(bench: Bench) -> None:
    """To less than one step of Adam after ten; the tables are where it shows first."""
    gpu, cpu = bench.learned(GPU), bench.learned(CPU)
    assert gpu.device.type == GPU.type
    for of_gpu, of_cpu in zip(gpu.tables.parameters(), cpu.tables.parameters(), strict=True):
        assert_close(of_gpu.detach(), of_cpu.detach(), TINY.training.learning_rate)


def test_the_same_rows_become_the_same_memory(bench: Bench) -> None:
    """Influence (eq. 10), addressing and the unrolled steps (eqs. 16-19)."""
    reference = bench.learned(CPU)
    checkpoint = stored(reference)
    scorer = LocalScorer(PartScorer(reference, bench.log, bench.log.block(1)))
    boundary, more, pool = (
        EmbeddedRows.joined(scorer.embed(random_rows(scorer, rows, rows)))
        for rows in (200, 100, TINY.pool_rows)
    )

    def memory(device: torch.device) -> Memory:
        on_device = bench.learner(device)
        restore(on_device, checkpoint)
        start = fused_memory(boundary.as_memory(1).to(device), None, on_device, rows=200)
        real = pool.targets("teacher").to(device)
        first = optimised_memory(1, bench.log, TINY, start, real, None, None)
        # Not the checkpoint: the gradient of its loss against its own answers is rounding and no more.
        judge, new = new_reference(bench.log, TINY, "judge").to(device), more.as_memory(2).to(device)
        return fuse(loss_of(judge), dense_params(judge), new=new, old=first, keep=200)

    gpu, cpu = memory(GPU), memory(CPU)
    assert_close(gpu.emb_NFD, cpu.emb_NFD, 1e-5)
    assert_close(gpu.logit_NT, cpu.logit_NT, 1e-4)
    assert_close(
        gpu.influence_N[100:], cpu.influence_N[100:], 1e-3 * float(cpu.influence_N[100:].abs().median())
    )
    moved = (cpu.emb_NFD[100:] - boundary.as_memory(1).emb_NFD).abs()
    assert moved.max() > 1e-4


def test_a_run_and_its_cells_take_the_gpu(drift_log: str, tmp_path: Path, ray_here: None) -> None:
    run = distill(drift_log, str(tmp_path), TINY, ResourceConfig(num_gpus=0.3, threads=1))
    memory = run.records[-1].metrics.memory
    # Of the CUDA allocator: the memory of a process that has loaded torch is never as small.
    assert 0 < memory["peak_bytes"] < 200e6
    results = evaluate(
        drift_log, str(tmp_path), ("full", "diet"), {"finalnet": CandidateConfig(name="finalnet")}, 1, FIT
    )
    assert results["auc"].between(0.5, 1).all()

"""A small candidate trained on a memory, scored on the block that comes after it."""

import torch

from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.examples import Examples, predict
from diet_ray.seeding import numpy_generator
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.candidate_setup import new_candidate
from diet_ray.training.checkpoints.snapshot import Snapshot
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.device import default_device
from diet_ray.training.embedding import embed_rows, sample_rows
from diet_ray.training.metrics import Scores, score_tasks

PROBE = CandidateConfig(name="dcn")
EPOCHS = 8
ROWS = 65_536  # of the block, at most


def probe_memory(
    memory: Examples,
    checkpoint: StoredCheckpoint,
    log: EncodedLog,
    block: Block,
    dim: int,
    seed: int = 0,
) -> Scores:
    """How well the memory prepares for `block`, which nothing here has learned from.

    checkpoint: of the reference whose tables the memory's rows were embedded by. No epoch is chosen by its
    score, so the figure is an honest one. Raises DataError where the probe diverges.
    """
    device = torch.device(default_device())
    dense = new_candidate(PROBE, seed, fields=len(log.fields), dim=dim, tasks=len(log.tasks)).to(device)
    rows = memory.to(device)
    candidate = CandidateTraining(dense, rows, rows, PROBE.apply_to(FitConfig()), seed)
    for _ in range(EPOCHS):
        candidate.train()
    sample = sample_rows(log, block, ROWS, numpy_generator(0, "probe", block.name))
    embedded = embed_rows(Snapshot.under(dense, checkpoint, fields=len(log.fields), dim=dim), sample)
    logit_NT = predict(dense, embedded.emb_NFD).cpu().numpy()
    return score_tasks(logit_NT, sample.label_NT, log.tasks)

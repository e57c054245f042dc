"""A small candidate trained on a memory, scored on the block that comes after it."""

from diet_ray.config import CandidateConfig, FitConfig, TrainingConfig
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.examples import Examples, predict
from diet_ray.seeding import numpy_generator
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.candidate_setup import candidate_recommender
from diet_ray.training.checkpoints.restoring import restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint
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
    training: TrainingConfig,
    seed: int = 0,
) -> Scores:
    """How well the memory prepares for `block`, which nothing here has learned from.

    checkpoint: of the reference whose tables the memory's rows were embedded by. No epoch is chosen by its
    score, so the figure is an honest one. Raises DataError where the probe diverges.
    """
    recommender = candidate_recommender(PROBE, seed, log, dim, training)
    restore_tables(recommender, checkpoint)
    rows = memory.to(recommender.device)
    candidate = CandidateTraining(recommender.dense, rows, rows, PROBE.apply_to(FitConfig()), seed)
    for _ in range(EPOCHS):
        candidate.train()
    sample = sample_rows(log, block, ROWS, numpy_generator(0, "probe", block.name))
    logit_NT = predict(recommender.dense, embed_rows(recommender, sample).emb_NFD).cpu().numpy()
    return score_tasks(logit_NT, sample.label_NT, log.tasks)

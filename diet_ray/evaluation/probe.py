"""A small candidate trained on reduced rows, scored on the block that comes after them.

Shape suffixes: N rows, T tasks.
"""

import torch

from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.distillation.baselines import random_rows
from diet_ray.distillation.scored_rows import EmbeddedRows, LocalScorer, PartScorer
from diet_ray.log.batches import EncodedRows
from diet_ray.log.dataset import Block, EncodedLog
from diet_ray.models.examples import Examples, predict
from diet_ray.runs.state import RunState
from diet_ray.seeding import derived_seed, numpy_generator
from diet_ray.training.candidate import CandidateTraining
from diet_ray.training.candidate_setup import new_candidate
from diet_ray.training.checkpoints.snapshot import Snapshot
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.device import default_device
from diet_ray.training.embedding import embed_rows, sample_rows
from diet_ray.training.metrics import Array, Scores, score_tasks

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
    sample = probe_rows(log, block)
    logit_NT = probe_logits(memory, checkpoint, log, sample, dim, seed)
    return score_tasks(logit_NT, sample.label_NT, log.tasks)


def probe_rows(log: EncodedLog, block: Block) -> EncodedRows:
    """The rows of a block on which all probes are scored."""
    return sample_rows(log, block, ROWS, numpy_generator(0, "probe", block.name))


def probe_logits(
    reduced: Examples,
    checkpoint: StoredCheckpoint,
    log: EncodedLog,
    sample: EncodedRows,
    dim: int,
    seed: int,
) -> Array:
    """Logits [N, T] for `sample` of the small candidate after EPOCHS epochs on reduced rows."""
    device = torch.device(default_device())
    dense = new_candidate(PROBE, seed, fields=len(log.fields), dim=dim, tasks=len(log.tasks)).to(device)
    rows = reduced.to(device)
    candidate = CandidateTraining(dense, rows, rows, PROBE.apply_to(FitConfig()), seed)
    for _ in range(EPOCHS):
        candidate.train()
    embedded = embed_rows(Snapshot.under(dense, checkpoint, fields=len(log.fields), dim=dim), sample)
    return predict(dense, embedded.emb_NFD).cpu().numpy()


def newest_rows(state: RunState, stage: int, rows: int, seed: int = 0) -> Examples:
    """The memory's control: random rows of a stage's block with the labels of its reference."""
    scorer = LocalScorer(PartScorer(state.checkpoint(stage), state.log, state.log.block(stage)))
    chosen = random_rows(scorer, rows, derived_seed(seed, "newest", stage))
    return EmbeddedRows.joined(scorer.embed(chosen)).as_memory(stage).examples()

"""What the memory of a finished run is worth, from small candidates: the numbers of its verdict.

Shape suffixes: N rows, T tasks.
"""

import numpy as np

from diet_ray import layout
from diet_ray.errors import DataError
from diet_ray.evaluation.evaluator import Evaluator
from diet_ray.evaluation.methods import Method
from diet_ray.evaluation.probe import probe_logits, probe_rows
from diet_ray.evaluation.verdicts.evidence import stored_evidence
from diet_ray.evaluation.verdicts.gaps import auc_gap
from diet_ray.evaluation.verdicts.verdict import Contrast, Evidence, Other, counted, verdict
from diet_ray.models.examples import predict
from diet_ray.training.embedding import embed_rows
from diet_ray.training.metrics import Array, score_tasks

CONTROLS: tuple[Method, ...] = ("random", "newest")


def judge_memory(evaluator: Evaluator, seeds: int) -> Evidence | None:
    """Probe the newest memory and as many random rows on the subsequent block, beside the reference.

    The block is only scored: nothing here has learned from it. A seed varies the initial weights, the order
    of batches and the choice of the random rows.

    Returns:
        The numbers; None where the block has one class only in every task.

    Raises:
        DataError: where a probe diverges.
    """
    log, state = evaluator.log, evaluator.state
    stage, block = len(log.history), log.blocks["subsequent"]
    sample, checkpoint, dim = probe_rows(log, block), state.stored_checkpoint(stage), state.config.dim

    def probed(method: Method) -> list[Array]:
        return [
            probe_logits(evaluator.reduced_rows(method, seed), checkpoint, log, sample, dim, seed)
            for seed in range(seeds)
        ]

    reference = state.checkpoint(stage)
    logits: dict[Other, list[Array]] = {
        "reference": [predict(reference.dense, embed_rows(reference, sample).emb_NFD).cpu().numpy()]
    }
    del reference
    memory = probed("diet")
    logits |= {method: probed(method) for method in CONTROLS}  # type: ignore[misc]

    def auc(arrays: list[Array]) -> float:
        return float(np.mean([score_tasks(logit, sample.label_NT, log.tasks).auc for logit in arrays]))

    if np.isnan(auc(memory)):
        return None
    contrasts = []
    for other, arrays in logits.items():
        gap = auc_gap(memory, arrays, sample.label_NT)
        contrasts.append(Contrast.of(other, auc(arrays), gap))
    return Evidence(
        stage=stage,
        auc=auc(memory),
        contrasts=tuple(contrasts),
        seeds=seeds,
        where=f"block {block.name}",
        basis=f"a small DCN, {counted(seeds, 'seed')}, {len(sample.label_NT):,} rows",
    )


def judged(evaluator: Evaluator, seeds: int) -> str:
    """The verdict on the newest memory in words; what it rests on is kept in the run directory."""
    folder, block = evaluator.folder, evaluator.log.blocks["subsequent"]
    evidence = stored_evidence(folder, len(evaluator.log.history))
    if evidence is None or evidence.seeds != seeds:
        try:
            evidence = judge_memory(evaluator, seeds)
        except DataError as diverged:
            return f"No verdict on the memory: {diverged}"
        if evidence is None:
            return f"No verdict on the memory: each task has one class only in block {block.name}."
        folder.write_json(layout.VERDICT, evidence.model_dump(mode="json"))
    return verdict(evidence).text

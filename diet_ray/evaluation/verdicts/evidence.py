"""The numbers of a verdict, from what a run directory holds: cells, probes of a stream, probes at the end."""

import numpy as np
import pandas as pd

from diet_ray import layout
from diet_ray.evaluation.verdicts.gaps import mean_gap
from diet_ray.evaluation.verdicts.verdict import Contrast, Evidence, Other, counted
from diet_ray.runs.metrics import StageMetrics
from diet_ray.runs.records import StageRecord
from diet_ray.runs.run import Run
from diet_ray.storage import Folder

OF_CELLS: tuple[Other, ...] = ("full", "random", "newest")


def of_run(run: Run) -> Evidence | None:
    """The best that is known of the newest memory: an evaluation, else a stream's probes, else the last."""
    path = f"{layout.EVALUATION_RESULTS}.parquet"
    if run.folder.exists(path):
        evaluated = of_cells(run.folder.read_parquet(path).to_pandas(), run.stage)
        if evaluated:
            return evaluated
    return of_stream(run.records) if "stream" in run.config else stored_evidence(run.folder, run.stage)


def stored_evidence(folder: Folder, stage: int) -> Evidence | None:
    """What the probes found for the memory of `stage`; None where there were none."""
    if not folder.exists(layout.VERDICT):
        return None
    evidence = Evidence.model_validate(folder.read_json(layout.VERDICT))
    return evidence if evidence.stage == stage else None


def of_cells(cells: pd.DataFrame, stage: int) -> Evidence | None:
    """From the cells of an evaluation, each pair of one candidate and seed; None without a pair to compare.

    cells: columns method, candidate, seed and auc.
    """
    wide = cells.pivot_table(index=["candidate", "seed"], columns="method", values="auc")
    if "diet" not in wide or not set(OF_CELLS) & set(wide.columns):
        return None
    contrasts = []
    for other in OF_CELLS:
        pairs = wide[["diet", other]].dropna() if other in wide else pd.DataFrame()
        if len(pairs):
            gap = mean_gap((pairs["diet"] - pairs[other]).to_numpy())
            contrasts.append(Contrast.of(other, float(pairs[other].mean()), gap))
    mine = wide["diet"].dropna()
    candidates, seeds = (mine.index.get_level_values(name).nunique() for name in ("candidate", "seed"))
    if not contrasts:
        return None
    return Evidence(
        stage=stage,
        auc=float(mine.mean()),
        contrasts=tuple(contrasts),
        seeds=seeds,
        where="the test block",
        basis=f"{counted(candidates, 'candidate')}, {counted(seeds, 'seed')}",
    )


def of_stream(records: list[StageRecord]) -> Evidence | None:
    """From the probes of a stream, each on the block after its memory; None where none has been made."""
    probed = [each.metrics for each in records if each.metrics.probe]
    contrasts = []
    for other, pairs in (("reference", _progressive(probed)), ("newest", _newest(probed))):
        if pairs:
            own, others = np.array(pairs).T
            contrasts.append(Contrast.of(other, float(others.mean()), mean_gap(own - others)))  # type: ignore[arg-type]
    if not contrasts:
        return None
    aucs = [metrics.probe.auc for metrics in probed if metrics.probe]
    return Evidence(
        stage=records[-1].stage,
        auc=float(np.mean(aucs)),
        contrasts=tuple(contrasts),
        seeds=1,
        where=f"{counted(len(aucs), 'block')} of the stream",
        basis="a small DCN before the block was learned, 1 seed each",
    )


def _progressive(probed: list[StageMetrics]) -> list[tuple[float, float]]:
    return [(m.probe.auc, m.progressive.auc) for m in probed if m.probe and m.progressive]


def _newest(probed: list[StageMetrics]) -> list[tuple[float, float]]:
    return [(m.probe.auc, m.probe_newest.auc) for m in probed if m.probe and m.probe_newest]

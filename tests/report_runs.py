"""Runs with results of every kind for the report: of three stages with an evaluation, of 300 in a stream."""

from pathlib import Path

import numpy as np
import pandas as pd

from diet_ray.evaluation.methods import METHODS
from diet_ray.log.schema import parse_schema
from diet_ray.log.stream.log import StreamConfig, StreamLog
from diet_ray.runs.history import log_identity
from diet_ray.runs.metrics import (
    MeanScores,
    MemoryMetrics,
    Moments,
    StageMetrics,
    StageSeconds,
    StreamMetrics,
)
from diet_ray.runs.run import Run
from diet_ray.storage import FileStamp, Folder
from pipelines.runtime.run_access import write_table
from tests.tiny_run import TINY

ARCHITECTURES = ("dcn", "dcnv2", "finalnet", "finalmlp", "wukong")
LEVEL = {"cold": 0.7097, "warmup": 0.743, "newest": 0.7517, "random": 0.7514, "kmeans": 0.7508}
LEVEL |= {"el2n": 0.7504, "diet": 0.752, "full": 0.7502}


def cells(methods: tuple[str, ...], candidates: int, seeds: int) -> pd.DataFrame:
    """Cells about as they are on Globo."""
    draw = np.random.default_rng(0)
    names = [*ARCHITECTURES, *(f"candidate{n:02d}" for n in range(candidates))][:candidates]
    rows = [(m, name, s) for s in range(seeds) for name in names for m in methods]
    found = pd.DataFrame(rows, columns=["method", "candidate", "seed"])
    level = found["method"].map(LEVEL) + found["candidate"].map({n: 0.001 * i for i, n in enumerate(names)})
    for suffix, lower in (("", 0.0), ("_before", 0.003)):
        found[f"auc{suffix}"] = level - lower + draw.normal(scale=0.0006, size=len(found))
        found[f"logloss{suffix}"] = 1.18 - found[f"auc{suffix}"]
    found["seconds"] = draw.uniform(5, 80, len(found))
    found["in_reference"] = found["candidate"].isin(["dcn", "wukong"])
    found.loc[found["method"] == "cold", ["auc_before", "logloss_before"]] = float("nan")
    return found


def write_results(folder: Folder) -> None:
    """An evaluation, every study and a search."""
    write_table(folder, "evaluation/results", cells(METHODS, 3, 2))
    write_table(folder, "studies/ranking", cells(("full", "diet", "random"), 6, 2))
    variants = [
        cells(("diet", "random"), 2, 1).assign(
            variant=f"{share}%", auc=lambda own, share=share: own["auc"] - 0.001 / share
        )
        for share in (0.5, 1.5, 5)
    ]
    write_table(folder, "studies/ratio", pd.concat(variants))
    figure3 = [
        c.assign(variant=f"{name} {c['variant'].iloc[0]}") for c in variants for name in ("dcn", "wukong")
    ]
    write_table(folder, "studies/figure3", pd.concat(figure3))
    references = [cells(("diet", "random"), 2, 1).assign(variant=name) for name in ("dcn", "wukong")]
    write_table(folder, "studies/reference", pd.concat(references))
    write_table(folder, "studies/table4", cells(("diet",), 2, 2).assign(variant="without MF"))
    points = [
        {"method": method, "candidate": "dcn", "seed": 0, "steps": n * step, "auc": 0.6 + n / 99}
        for method, step in (("full", 50), ("diet", 2))
        for n in range(1, 5)
    ]
    write_table(folder, "studies/figure1", pd.DataFrame(points))
    costs = {"method": "full", "candidate": "dcn", "seed": 0, "seconds_epoch": 9.0, "seconds_history": 9.0}
    write_table(folder, "studies/table5", pd.DataFrame([{**costs, "peak_bytes": 5e8}]))
    write_table(folder, "search/results", trials())
    folder.write("search/best.yaml", b"name: dcn\n")


def trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": range(4),
            "model": ["dcn", "dcn", "my:<Net>", "wukong"],
            "candidate": ['{"options": {"a": 1}}'] * 4,
            "learning_rate": [1e-4, 1e-3, 1e-3, 1e-2],
            "state": ["finished", "stopped", "finished", "failed"],
            "epochs": [8, 1, 5, 0],
            "seconds": [9.0, 2.0, 5.0, 0.0],
            "auc": [0.7, 0.6, 0.71, float("nan")],
            "epoch_auc": [[[0.68, 0.69], [0.71, 0.7]], [[0.6], [0.6]], [[0.71], [0.69]], []],
            "confirmed_test_auc": [0.7, float("nan"), float("nan"), float("nan")],
        }
    )


SCHEMA = {
    "name": "clicks",
    "time": {"column": "ts"},
    "fields": ["user", "item"],
    "tasks": ["clicked", "bought"],
}


def write_stream(folder: Path, stages: int) -> Run:
    """A stream of many stages: its records alone, committed as a stream commits them."""
    log = StreamLog.create(Folder.at(str(folder)), parse_schema(SCHEMA, "test"))
    stream = {"stream": StreamConfig().model_dump()}
    run = Run.open(str(folder), {**TINY.model_dump(mode="json"), **log_identity(log), **stream})
    draw = np.random.default_rng(0)
    for stage in range(1, stages + 1):
        files = [
            FileStamp(f"memory/{stage:04d}/memory.parquet", 30_000 * stage, "m"),
            FileStamp(f"reference/{stage:04d}/checkpoint.safetensors", 5_000_000 + 1000 * stage, "r"),
        ]
        run.commit(f"{stage:04d}", tuple(files), _stage(stage, draw))
    return run


def _stage(stage: int, draw: np.random.Generator) -> StageMetrics:
    origins = {origin: int(600 / (1 + 0.1 * (stage - origin))) for origin in range(1, stage + 1)}
    rows, turned = sum(origins.values()), 0.02 * (120 < stage < 180)
    auc = 0.70 + 0.03 * (1 - np.exp(-stage / 40)) - turned + draw.normal(scale=0.003)
    groups = {0: 20_000, 1: 8_000 + 10 * stage, 3: 1_500}
    probed = stage % 10 == 0

    def scores(lower: float) -> MeanScores:
        return MeanScores(auc=auc - lower + draw.normal(scale=0.002), logloss=0.4)

    return StageMetrics(
        memory=MemoryMetrics(
            rows=rows, rows_by_stage=origins, rows_by_label_group={0: rows}, outer_loss=(0.5, 0.45)
        ),
        block_rows=sum(groups.values()),
        label_groups=groups,
        training_loss=0.45 + turned,
        el2n=Moments(mean=0.4 + turned, deviation=0.1),
        seconds=StageSeconds(
            train=7.5, score=3.9, distill=6.0 + draw.uniform(), probe=4.0 if probed else None
        ),
        progressive=None if stage == 1 else scores(0),
        probe=scores(0.004) if probed else None,
        probe_newest=scores(0.009) if probed else None,
        stream=StreamMetrics(
            taken=(),
            grown=(),
            watermark=stage * 1000,
            counts={"late": int(draw.poisson(3)), "duplicates": int(draw.poisson(1)), "files_quarantined": 0},
            closed_at=1_700_000_000.0 + 600 * stage,
            seconds_to_read=2.0 + draw.uniform(),
            seconds_to_commit=18.0 + draw.uniform(),
            rows_waiting=int(draw.uniform(0, 9_000)),
            unread=0,
        ),
    )

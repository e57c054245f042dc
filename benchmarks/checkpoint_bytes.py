"""What a stream's checkpoints write and read: micro-blocks over a million ids.

    python -m benchmarks.checkpoint_bytes --out checkpoint_bytes.json

Ids are Zipf, rows are learned by a small DCN. Per stage: bytes written over those of the touched rows with
their moments, and over the whole state in one file as version 0.1 wrote it. At the end: whether restoring
some of the stages is the same to the bit, how long it takes, and how long a scorer of one more block reads.
Takes two minutes of CPU and 3 GB of disk.
"""

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.storage import Folder
from diet_ray.training.checkpoints.manifest import FullEvery, Manifest
from diet_ray.training.checkpoints.restoring import restore
from diet_ray.training.checkpoints.stored import StoredCheckpoint
from diet_ray.training.checkpoints.writing import write_checkpoint
from diet_ray.training.recommender import Recommender

FIELDS, TASKS = 4, 1


@dataclass
class Settings:
    stages: int = 50
    ids: int = 1_000_000
    rows: int = 30_000
    dim: int = 32
    every: FullEvery = "auto"
    restored: int = 6
    """Stages, spread evenly to the last, that are restored at the end."""
    out: Path | None = None


@dataclass
class Stage:
    full: bool
    touched_mb: float
    written_mb: float
    seconds: float


def learner(dim: int) -> Recommender:
    dense = build_model(
        ModelConfig(name="dcn", options={"hidden": (32,)}), fields=FIELDS, dim=dim, tasks=TASKS, seed=0
    )
    return Recommender(dense, FIELDS, dim)


def digest(model: Recommender) -> str:
    """Of every table, its moments and the dense weights."""
    found = hashlib.sha256()
    for weight in model.tables.weights():
        state = model.table_optimiser.state[weight]
        for tensor in (weight, state["exp_avg"], state["exp_avg_sq"]):
            found.update(tensor.detach().numpy())
    for weight in model.dense.parameters():
        found.update(weight.detach().numpy())
    return found.hexdigest()


def measure(settings: Settings, folder: Folder) -> dict[str, object]:
    draw, model = np.random.default_rng(0), learner(settings.dim)
    sizes = tuple(int(settings.ids * share) for share in (0.6, 0.3, 0.09, 0.01))
    model.grow(sizes, torch.Generator().manual_seed(0))
    touched: list[np.ndarray] = [np.arange(rows) for rows in sizes]
    stages: list[Stage] = []
    last = settings.stages + 1  # the first one writes all, because all is new
    looked_at = set(np.linspace(1, last, settings.restored).astype(int).tolist())
    digests: dict[int, str] = {}
    for stage in range(1, last + 1):
        id_NF = np.stack([draw.zipf(1.2, settings.rows) % rows for rows in sizes], 1)
        for ids in torch.from_numpy(id_NF).split(4096):
            model.step(ids, torch.rand(len(ids), TASKS))
        if stage > 1:
            touched = [np.unique(id_NF[:, field]) for field in range(FIELDS)]
        started = time.perf_counter()
        stamps = write_checkpoint(folder, stage, model, touched, settings.every)
        seconds = time.perf_counter() - started
        manifest = Manifest.read(folder, stage)
        assert manifest
        own = 3 * 4 * settings.dim * sum(map(len, touched)) + manifest.dense.size
        written = sum(stamp.size for stamp in stamps)
        stages.append(Stage(not manifest.increments, own / 1e6, written / 1e6, round(seconds, 3)))
        if stage in looked_at:
            digests[stage] = digest(model)
    after, increments = stages[1:], [stage for stage in stages[1:] if not stage.full]
    whole = stages[0].written_mb
    total, own_total = (sum(getattr(s, name) for s in after) for name in ("written_mb", "touched_mb"))
    return {
        "worst_increment_over_touched": max(s.written_mb / s.touched_mb for s in increments),
        "all_over_touched": total / own_total,
        "all_over_whole_every_stage": total / (whole * len(after)),
        "full": sum(stage.full for stage in after),
        "whole_mb": whole,
        **restoring(settings, folder, digests, touched),
        "stages": [asdict(stage) for stage in stages],
    }


def restoring(
    settings: Settings, folder: Folder, digests: dict[int, str], touched: list[np.ndarray]
) -> dict[str, object]:
    """Restore the stages of `digests`; read the `touched` rows of the last one as a scorer does."""
    same, seconds = {}, {}
    for stage, expected in digests.items():
        restored = learner(settings.dim)
        started = time.perf_counter()
        restore(restored, StoredCheckpoint(folder, stage))
        seconds[stage] = round(time.perf_counter() - started, 2)
        same[stage] = digest(restored) == expected
    started = time.perf_counter()
    opened = StoredCheckpoint(folder, max(digests))
    for field in range(FIELDS):
        opened.rows(field, touched[field])
    reading = time.perf_counter() - started
    return {
        "same_after_restoring": same,
        "seconds_restoring": seconds,
        "seconds_reading_one_block": round(reading, 3),
    }


def main(settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(settings, Folder.at(folder))
    print(json.dumps({key: value for key, value in found.items() if key != "stages"}, indent=1))
    if settings.out:
        settings.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))

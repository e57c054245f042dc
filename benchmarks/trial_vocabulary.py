"""Does a trial of a search cost more when the log has more ids?

    $ python benchmarks/trial_vocabulary.py --out vocabulary.json

A memory and validation rows are embedded by tables of 1e5, 1e6 and 1e7 ids, once, as a search does it; then
the same candidate is trained on them for two epochs. Expected: the ratios of seconds and of shared bytes are
1 up to noise, whatever the vocabulary; what grows is the embedding once per search. Takes a minute and 3 GB.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.evaluation.trial import Trial, TrialData
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.models.examples import Examples
from diet_ray.storage import Folder
from diet_ray.training.candidate_setup import new_candidate
from diet_ray.training.tables import Tables

FIELDS, DIM, TASKS = 12, 32, 3
CANDIDATE = CandidateConfig(name="dcn", options={"hidden": [128, 64]})
FIT = FitConfig(epochs=2, patience=2)


@dataclass(frozen=True)
class Options:
    ids: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    """Rows of all tables together."""
    rows: int = 20_000
    """Of the memory."""
    validation: int = 16_384
    repeats: int = 3
    out: Path | None = None
    """JSON file of the result."""


def embedded(tables: Tables, rows: int, draw: torch.Generator) -> Examples:
    id_NF = torch.stack([torch.randint(n, (rows,), generator=draw) for n in tables.rows], 1)
    with torch.no_grad():
        return Examples(tables(id_NF), torch.rand(rows, TASKS, generator=draw).round())


def filled(ids: int, draw: torch.Generator) -> Tables:
    tables = Tables(FIELDS, DIM)
    for weight in tables.weights():
        weight.data = torch.randn(ids // FIELDS, DIM, generator=draw) * 0.03
    return tables


def trial_seconds(data: TrialData, repeats: int) -> float:
    """Median seconds of a trial from start to record."""

    def build(candidate: CandidateConfig, seed: int) -> torch.nn.Module:
        return new_candidate(candidate, seed, fields=FIELDS, dim=DIM, tasks=TASKS)

    taken = []
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            record = TrialRecord(number=repeat, candidate=CANDIDATE)
            started = time.perf_counter()
            trial = Trial(record, data, FIT, build, 1, Folder.at(folder))  # type: ignore[arg-type]
            while not trial.finished:
                trial.epoch()
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main(options: Options) -> None:
    torch.set_num_threads(1)
    found = []
    for ids in options.ids:
        draw = torch.Generator().manual_seed(0)
        tables = filled(ids, draw)
        started = time.perf_counter()
        data = TrialData(embedded(tables, options.rows, draw), embedded(tables, options.validation, draw))
        once = time.perf_counter() - started
        if not found:
            trial_seconds(data, 1)  # warm
        shared = sum(part.numel() * part.element_size() for rows in data for part in rows)
        found.append(
            {"ids": ids, "trial_s": trial_seconds(data, options.repeats), "once_s": once, "bytes": shared}
        )
        del tables
    for row in found:
        row |= {f"{key}_ratio": row[key] / found[0][key] for key in ("trial_s", "bytes")}
        print(
            f"{row['ids']:>12,} ids: trial x {row['trial_s_ratio']:.2f}, "
            f"shared bytes x {row['bytes_ratio']:.2f} ({row['trial_s']:.2f} s, "
            f"{row['bytes'] / 1e6:.0f} MB; embedded once in {row['once_s']:.2f} s)"
        )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

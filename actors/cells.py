"""Cells of the comparison, and other work of an evaluation, as Ray tasks of one thread each.

One thread: two processes with two threads each on two cores run many times slower than one.
"""

from typing import Any

import numpy as np
import ray
import torch

from diet_ray.config import CandidateConfig, FitConfig, RunConfig
from diet_ray.evaluation.cell import CellResult
from diet_ray.evaluation.evaluator import Evaluator
from diet_ray.evaluation.export import write_model
from diet_ray.evaluation.judges.prequential import JUDGES, Judging
from diet_ray.evaluation.judges.record import JudgeRecord, judged_to_the_end
from diet_ray.evaluation.methods import Method
from diet_ray.evaluation.trajectory import Point
from diet_ray.evaluation.verdicts import memory_probe
from diet_ray.runs.state import RunState
from diet_ray.storage import Folder

THREADS = 1


def evaluator(data: str, run: str, config: dict[str, Any]) -> Evaluator:
    """The evaluator of a run, in a worker process."""
    torch.set_num_threads(THREADS)
    return Evaluator(RunState.open(data, run, RunConfig.model_validate(config)), run)


@ray.remote(num_cpus=THREADS, max_retries=2)
def evaluate_cell(
    data: str,
    run: str,
    config: dict[str, Any],
    method: Method,
    candidate: CandidateConfig,
    seed: int,
    fit: FitConfig,
) -> CellResult:
    """Train and score one cell."""
    return evaluator(data, run, config).run_cell(method, candidate, seed, fit)[1]


@ray.remote(num_cpus=THREADS, max_retries=2)
def judge_memory(data: str, run: str, config: dict[str, Any], seeds: int) -> str:
    """The verdict on the newest memory."""
    return memory_probe.judged(evaluator(data, run, config), seeds)


@ray.remote(num_cpus=THREADS, max_retries=2)
def choose_rehearsal_weight(
    data: str, run: str, config: dict[str, Any], method: Method, fit: FitConfig
) -> float:
    """The rehearsal weight of a method, chosen once per run where the fit says "auto"."""
    return evaluator(data, run, config).with_weight(method, fit).chosen_weight


@ray.remote(num_cpus=THREADS, max_retries=2)
def trace_cell(
    data: str,
    run: str,
    config: dict[str, Any],
    method: Method,
    candidate: CandidateConfig,
    seed: int,
    fit: FitConfig,
) -> list[Point]:
    """The trajectory of a cell."""
    return evaluator(data, run, config).trajectory(method, candidate, seed, fit)


@ray.remote(num_cpus=THREADS, max_retries=2)
def train_candidate(
    data: str,
    run: str,
    config: dict[str, Any],
    candidate: CandidateConfig,
    seed: int,
    fit: FitConfig,
    out: str,
) -> None:
    """Train a candidate on the memory and the subsequent block and write it to `out`."""
    own = evaluator(data, run, config)
    recommender, result = own.run_cell("diet", candidate, seed, fit)
    provenance = {"seed": seed, "fit": fit.model_dump(mode="json"), **own.provenance()}
    write_model(Folder.at(out), recommender, candidate, own.log, result, provenance)


@ray.remote(num_cpus=THREADS, max_retries=2)
def judge_candidate(
    data: str,
    run: str,
    config: dict[str, Any],
    judges: tuple[str, ...],
    candidate: CandidateConfig,
    seed: int,
) -> list[JudgeRecord]:
    """What each judge has found out about a candidate that nobody stops."""
    wanted = any(JUDGES[name].needs_reference for name in judges)
    setting = evaluator(data, run, config).judge_setting(with_reference=wanted)
    return [judged_to_the_end(Judging(name, JUDGES[name], setting, candidate, seed), seed) for name in judges]


@ray.remote(num_cpus=THREADS, max_retries=2)
def trial_arrays(data: str, run: str, config: dict[str, Any], fit: FitConfig) -> list[np.ndarray]:
    """Memory and validation rows of a search: embeddings [N, F, D] and labels [N, T] of both, in order."""
    rows = evaluator(data, run, config).trial_data(fit.validation_rows)
    return [part.cpu().numpy() for part in (*rows.reduced, *rows.validation)]

"""Scores raw rows over Ray Data: tasks read files, a pool of actors holds the exported model."""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import ray
import torch

from actors.connection import user_errors
from actors.data import quiet_data
from actors.placement import Claim, capacity, cluster_nodes
from diet_ray.errors import ResourceError
from diet_ray.evaluation.exported_model import ExportedModel
from diet_ray.log.scoring.fields import FieldReader
from diet_ray.log.scoring.files import PIECE_ROWS, READABLE, kept_of, pieces_of_file, texts_of
from diet_ray.storage import Folder
from diet_ray.training.device import default_device

FILE = "file"  # column with the number of the file that a row comes from
THREADS = 1


class Scoring(NamedTuple):
    """What is scored, by what."""

    model: str
    source: str
    paths: Sequence[str]
    keep: Sequence[str]
    kinds: pa.Schema  # of the kept columns


def scored_files(scoring: Scoring, workers: int, claim: Claim) -> Iterator[pa.Table]:
    """Scores of all rows, in the order of the files and of their rows; kept columns come first.

    A last column FILE numbers the file, from 0. Ray must have been joined. Raises what reading raises.
    """
    quiet_data()
    # Of a user's mistake it would print the frames of every layer.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    numbers = [{"number": number} for number in range(len(scoring.paths))]
    rows: ray.data.Dataset = ray.data.from_items(numbers, override_num_blocks=len(numbers))
    rows = rows.map_batches(partial(_read, scoring=scoring), batch_size=1)
    rows = rows.map_batches(
        Scorer,
        fn_constructor_args=(scoring.model,),
        batch_size=PIECE_ROWS,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=claim.cpus,
        num_gpus=claim.gpus or None,
    )
    with user_errors():
        yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")


def worker_claim(requested: int | Literal["auto"]) -> tuple[int, Claim]:
    """How many actors hold the model, and what each claims; ResourceError where they do not fit.

    auto: one per GPU, or per CPU; a CPU is left for the tasks that read.
    """
    nodes = cluster_nodes()
    claim = Claim(1, 1 if any(node.gpus >= 1 for node in nodes) else 0)
    most = capacity(nodes, claim)
    if most < 1:  # a single CPU, which both share
        most, claim = 1, Claim(0, 0)
    if requested == "auto":
        return most, claim
    if not 1 <= requested <= most:
        raise ResourceError(f"--workers is {requested}: the cluster has room for 1 to {most}")
    return requested, claim


def _read(batch: Any, scoring: Scoring) -> Iterator[Any]:
    (number,) = batch["number"].tolist()
    reader = _reader(scoring.model)
    for piece in pieces_of_file(scoring.paths[number], scoring.source, reader, scoring.keep, scoring.kinds):
        yield piece.append_column(FILE, pa.array(np.full(piece.num_rows, number, np.int32)))


@lru_cache(maxsize=1)
def _reader(model: str) -> FieldReader:
    return FieldReader(Folder.at(model))


class Scorer:
    """Holds the model on its process's device."""

    def __init__(self, model: str) -> None:
        torch.set_num_threads(THREADS)
        self.model = ExportedModel(Folder.at(model), default_device())

    def __call__(self, piece: pa.Table) -> pa.Table:
        scored = kept_of(piece)
        readable_N = piece[READABLE].to_numpy()
        probability_NT = np.zeros((piece.num_rows, len(self.model.tasks)))
        probability_NT[readable_N] = self.model.probabilities(texts_of(piece))
        for task, probability_N in zip(self.model.tasks, probability_NT.T, strict=True):
            scored = scored.append_column(task, pa.array(probability_N, mask=~readable_N))
        return scored.append_column(FILE, piece[FILE])

"""Score the rows of raw files with an exported model."""

import sys
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from actors.connection import connect
from actors.serving.files import FILE, Scoring, scored_files, worker_claim
from diet_ray.errors import ConfigError
from diet_ray.evaluation.exported_model import load_model
from diet_ray.log.files import log_files
from diet_ray.log.scoring.files import first_kinds, stored_rows
from diet_ray.storage import absolute, file_at
from pipelines.options.predict import Predict
from pipelines.runtime.candidates import listed
from pipelines.runtime.command import run_command, say_next
from pipelines.runtime.progress import bars, console

SCORES = "scores.parquet"  # name of the file where --out is a folder


def execute(options: Predict) -> None:
    keep = listed(options.keep, "keep") if options.keep else []
    rows = predict(options.model, options.source, options.out, keep, options.workers)
    console.print(f"{options.out}: {rows:,} rows", markup=False)
    say_next("serve", "--model", options.model)


def predict(
    model: str, source: str, out: str, keep: list[str], workers: int | Literal["auto"] = "auto"
) -> int:
    """Score all rows of `source` over the cluster and write them to `out`; return how many.

    Raises:
        ConfigError: where `out` exists, or a kept column has the name of a task.
        DataError: where a column is missing, or a row cannot be read.
        RunError: where there is no model, or one that cannot predict from raw rows.
    """
    model, source = absolute(model), absolute(source)
    folder, name = file_at(out, SCORES)
    if folder.exists(name):
        raise ConfigError(f"{out} exists; choose another file, or remove it")
    loaded = load_model(model)
    if taken := [column for column in keep if column in loaded.tasks]:
        raise ConfigError(f"--keep {taken[0]}: that is the name of a task, whose scores are called so")
    paths = log_files(source, loaded.reader.schema)
    kinds = first_kinds(paths, source, loaded.reader, keep)
    written = pa.schema([*kinds, *(pa.field(task, pa.float64()) for task in loaded.tasks)])
    scoring = Scoring(model, source, paths, keep, kinds)
    connect()
    count, claim = worker_claim(workers)
    rows, total = 0, stored_rows(paths, loaded.reader.schema)
    with (
        folder.writing(name) as file,
        pq.ParquetWriter(file, written) as writer,
        bars() as shown,
        shown.bar("scoring", total or len(paths), "rows" if total else "files") as bar,
    ):
        finished = 0
        for scored in scored_files(scoring, count, claim):
            writer.write_table(scored.select(written.names).cast(written))
            rows += scored.num_rows
            last = scored[FILE][-1].as_py()
            bar.advance(scored.num_rows if total else last - finished)
            finished = last
    return rows


if __name__ == "__main__":
    sys.exit(run_command(Predict, "diet-ray predict"))

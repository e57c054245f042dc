"""The options of `diet-ray predict` and `diet-ray serve`: what uses an exported model."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Predict:
    """Score the rows of raw files with a model that `train` exported.

    $ diet-ray predict --model models/best --source rows.parquet --out scores.parquet

    $ diet-ray predict --model models/best --source clicks/ --out scores.parquet --keep user_id,item_id

    Files are of any format that `prepare` reads; rows need the columns that the fields are made of, and no
    labels. OUT is a Parquet file with a probability per task for each row, files in the order of their names;
    it is written whole or not at all. Rows that cannot be read end the command, or have no scores where the
    log's schema says `malformed: quarantine`.
    """

    model: str
    """Directory of the exported model."""
    source: str
    """The rows: a file or a directory, local or any fsspec URL."""
    out: str
    """The Parquet file; new."""
    keep: str = ""
    """Comma list of columns of the source that OUT has, too."""
    workers: int | Literal["auto"] = "auto"
    """Actors that hold the model; auto: one per GPU, or all CPUs but one."""

    def __call__(self) -> None:
        from pipelines.predict import execute

        execute(self)


@dataclass(frozen=True)
class Serve:
    """Answer rows with probabilities over HTTP, by Ray Serve (extra `serve`), until interrupted.

    $ diet-ray serve --model models/best

    $ curl localhost:8000 -d '[{"user_id": "u1", "ts": "2017-10-01 12:00"}]'

    A request is a JSON list of rows, the answer a list with a probability per task; a row that cannot be read
    is code 400 with the reason. For a Serve config, `actors.serving.http:application` is the application.
    """

    model: str
    """Directory of the exported model."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: all of the machine."""
    port: int = 8000
    """Port to listen on."""

    def __call__(self) -> None:
        from pipelines.serve import execute

        execute(self)

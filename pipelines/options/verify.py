"""The options of `diet-ray verify`."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Verify:
    """Check every file of every stage of a run: size, checksum, and the chain of the commit records.

    $ diet-ray verify runs/globo

    $ diet-ray verify s3://bucket/run --json

    Prints a line per fault and ends with exit code 2 where there is one. The run may be running. Files that a
    stream has removed by --stream.keep-last are not missed.
    """

    run: tyro.conf.Positional[str]
    """Directory of a run, of `diet-ray distill` or `diet-ray stream`."""
    json: bool = False
    """Print JSON instead of lines."""

    def __call__(self) -> None:
        from pipelines.verify import execute

        execute(self)

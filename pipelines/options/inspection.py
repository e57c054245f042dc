"""The options of `diet-ray inspect`."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Inspect:
    """Show the stages of a run: rows, label groups, what survives of each stage, sizes, seconds.

    $ diet-ray inspect runs/globo

    $ diet-ray inspect runs/globo --json > stages.json
    """

    run: tyro.conf.Positional[str]
    """Directory of a run; it may be running."""
    json: bool = False
    """Print JSON instead of tables."""

    def __call__(self) -> None:
        from pipelines.inspection import execute

        execute(self)

"""The options of `diet-ray status`."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Status:
    """Show the state of a stream: newest stage, lag, rows per second, drift, quarantine, who writes it.

    $ diet-ray status runs/live

    $ diet-ray status runs/live --json
    """

    run: tyro.conf.Positional[str]
    """Directory of a run of `diet-ray stream`; it may be running."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> None:
        from pipelines.status import execute

        execute(self)

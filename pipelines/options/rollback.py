"""The options of `diet-ray rollback`."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Rollback:
    """Take a run back to an earlier stage: remove the records and files of the stages after it.

    $ diet-ray rollback runs/live --to 41

    $ diet-ray rollback runs/live --to 41 --yes

    Shows what would be removed; --yes removes it. Readers see the memory of that stage at once, and never
    none. The next `diet-ray distill` or `diet-ray stream` goes on after it: a stream reads again what the
    removed stages took, so its source must still have it. A stream can go back as far as its files are kept
    (--stream.keep-last, --stream.keep-every).
    """

    run: tyro.conf.Positional[str]
    """Directory of the run; nobody may be writing it."""
    to: int
    """The stage to go back to, from 1."""
    yes: bool = False
    """Remove; without it nothing is changed."""

    def __call__(self) -> None:
        from pipelines.rollback import execute

        execute(self)

"""What the commit record of a micro-block keeps of its intake, so that a stream resumes where it stopped."""

from typing import NamedTuple

from diet_ray.strict import Strict


class Taken(NamedTuple):
    """What an origin gave between two places; `done`: nothing more comes from it."""

    origin: str
    start: int
    stop: int
    done: bool


class IntakeState(Strict):
    """The intake after a micro-block."""

    taken: tuple[Taken, ...]
    """What the block took, of each origin, in order."""
    watermark: int
    """Time of the newest row taken, ms since 1970 UTC."""
    grown: tuple[str, ...]
    """Fields whose vocabulary has new ids."""
    counts: dict[str, int]
    """Rows that were quarantined or dropped as duplicates, files that could not be read, by reason."""

"""Local clock times to moments in UTC.

Shape suffixes: N rows.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

EPOCH = datetime(1970, 1, 1)
MILLISECOND = timedelta(milliseconds=1)


class Moments(NamedTuple):
    """Moments in ms since 1970 UTC, and which local times were not plain."""

    ms_N: NDArray[np.int64]
    repeated_N: NDArray[np.bool_]  # the hour comes twice when the clock goes back; the first one is taken
    skipped_N: NDArray[np.bool_]  # the clock goes forward past this time; the end of the gap is taken


def check_zone(zone: str) -> None:
    """Raise ValueError where there is no such time zone."""
    try:
        pc.assume_timezone(pa.array([0], pa.timestamp("ms")), zone)
    except pa.ArrowException as unknown:
        raise ValueError(f"there is no time zone {zone} ({unknown})") from unknown


def from_local(local_N: NDArray[np.int64], zone: str) -> Moments:
    """Moments of local times, given in ms since 1970-01-01T00:00 on that clock."""
    none_N = np.zeros(len(local_N), bool)
    if zone == "UTC":
        return Moments(local_N, none_N, none_N)
    local = pa.array(local_N).cast(pa.timestamp("ms"))
    early_N, late_N = (
        pc.assume_timezone(local, zone, ambiguous=side, nonexistent=side).cast(pa.int64()).to_numpy()
        for side in ("earliest", "latest")
    )
    # Around a gap Arrow answers with its last millisecond before and its first moment after.
    skipped_N = late_N - early_N == 1
    return Moments(np.where(skipped_N, late_N, early_N), (early_N != late_N) & ~skipped_N, skipped_N)


def moment_ms(moment: datetime, zone: str) -> int:
    """A datetime in ms since 1970 UTC; one without an offset is local time in `zone`."""
    offset = moment.utcoffset()
    plain = moment.replace(tzinfo=None)
    if offset is not None:
        return (plain - offset - EPOCH) // MILLISECOND
    return int(from_local(np.array([(plain - EPOCH) // MILLISECOND]), zone).ms_N[0])

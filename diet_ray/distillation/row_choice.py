"""Exact choices from a block whose rows are spread over parts, without a list of its rows anywhere.

Rows fall into cells (say, a label group and a bin of EL2N), and each cell has a quota; within a cell the rows
with the smallest hash of (seed, row number) are chosen. Whoever decides sees counts and thresholds only, and
the choice is the same however the block is cut into parts.

Shape suffixes: N rows, C cells, P columns of scores, B bins.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diet_ray.errors import DataError
from diet_ray.seeding import derived_seed

DIGIT_BITS = 16
BINS = 1 << DIGIT_BITS
VALUE_DIGITS, HASH_DIGITS = 2, 4  # of a float32, and of a hash
# splitmix64 (Steele et al., OOPSLA 2014): a bijection, so that two rows never have the same hash.
GAMMA, MIX_1, MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def row_hash(seed: int, row_N: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of each row number, uniform over 64 bits and different for different rows."""
    start = np.uint64(derived_seed(seed, "row hash"))
    mixed_N = row_N.astype(np.uint64) * GAMMA + start
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * MIX_1
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * MIX_2
    return mixed_N ^ (mixed_N >> np.uint64(31))


class Rows(NamedTuple):
    """Row numbers within the block, ascending, and the cell of each."""

    row_N: NDArray[np.int64]
    cell_N: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def take(self, place_N: NDArray[np.int64]) -> "Rows":
        return Rows(self.row_N[place_N], self.cell_N[place_N])

    def split(self, first: Sequence[int]) -> list["Rows"]:
        """Cut into the rows of each part; `first` are the parts' first row numbers."""
        cuts = np.searchsorted(self.row_N, first[1:])
        return [
            Rows(*arrays)
            for arrays in zip(np.split(self.row_N, cuts), np.split(self.cell_N, cuts), strict=True)
        ]


class Draw(NamedTuple):
    """A choice of `quota_C` rows from cells of `count_C` rows; cells without a quota are left out."""

    seed: int
    cell_C: NDArray[np.int64]  # ascending
    count_C: NDArray[np.int64]
    quota_C: NDArray[np.int64]  # at least 1, at most the count
    every: bool = False  # whether each row of a cell is a candidate

    def candidates(self, rows: Rows) -> Rows:
        """Those rows of a part that may be chosen.

        As many as a cell's quota, and by the hash hardly more than the part's share of them. In a cell of
        Poisson(q + 6 sqrt(q) + 15) candidates fewer than q are found once in 1e9 cells; see `chosen`.
        """
        place_N = np.minimum(np.searchsorted(self.cell_C, rows.cell_N), len(self.cell_C) - 1)
        hash_N = row_hash(self.seed, rows.row_N)
        wanted_C = self.quota_C + 6 * np.sqrt(self.quota_C) + 15
        limit_C = np.ones(len(wanted_C)) if self.every else wanted_C / np.maximum(self.count_C, 1)
        known_N = self.cell_C[place_N] == rows.cell_N
        near_N = np.flatnonzero(known_N & ((hash_N >> np.uint64(11)) * 2.0**-53 < limit_C[place_N]))
        return rows.take(near_N[self._smallest(place_N[near_N], hash_N[near_N])])

    def chosen(self, candidates: Sequence[Rows]) -> Rows | None:
        """The choice from the candidates of all parts; None where a cell has too few of them.

        Then candidates must be looked for again with `every`.
        """
        rows = Rows.joined(candidates)
        place_N = np.searchsorted(self.cell_C, rows.cell_N)
        chosen = rows.take(self._smallest(place_N, row_hash(self.seed, rows.row_N)))
        if len(chosen.row_N) < self.quota_C.sum():
            if self.every:
                raise DataError("cells have fewer rows than were counted: scores of the block have changed")
            return None
        return chosen

    def _smallest(self, place_N: NDArray[np.int64], hash_N: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Positions of the `quota_C` smallest hashes of each cell, ascending."""
        order_N = np.lexsort((hash_N, place_N))
        sorted_N = place_N[order_N]
        rank_N = np.arange(len(order_N)) - np.searchsorted(sorted_N, sorted_N)
        return np.sort(order_N[rank_N < self.quota_C[sorted_N]])


def whole_block(rows: int, quota: int, seed: int) -> Draw:
    """A draw of `quota` rows from a block of `rows` that are all in cell 0: uniform, without replacement."""
    return Draw(seed, np.array([0]), np.array([rows]), np.array([min(quota, rows)]))


class Lowest(NamedTuple):
    """The search for the `rank` lowest rows of a column, digit by digit, from the highest.

    The digits of a row are those of its value (as an unsigned number of the same order) and, for equal
    values, of its hash. A row is among the lowest where its digits are at most `digits`.
    """

    rank: int
    digits: tuple[int, ...] = ()
    done: bool = False

    def narrowed(self, count_B: NDArray[np.int64]) -> "Lowest":
        """One digit on; count_B: rows by their next digit, of those that have all digits so far."""
        upto_B = count_B.cumsum()
        digit = int(np.searchsorted(upto_B, self.rank))
        below = int(upto_B[digit - 1]) if digit else 0
        return Lowest(self.rank - below, (*self.digits, digit), bool(upto_B[digit] == self.rank))


class Digits:
    """The digits of a part's rows in one column of scores."""

    def __init__(self, seed: int, row_N: NDArray[np.int64], value_N: NDArray[np.floating]) -> None:
        self.value_N, self._seed, self._row_N = _ordered(value_N), seed, row_N
        self._hash_N: NDArray[np.uint64] | None = None

    def counted(self, search: Lowest) -> NDArray[np.int64]:
        """Rows by their next digit, of those that have all digits of the search; [B]."""
        same_N, _ = self._compared(search)
        return np.bincount(self._digit(len(search.digits))[same_N], minlength=BINS)

    def among(self, search: Lowest) -> NDArray[np.bool_]:
        """Whether each row is one of the lowest, by a search that is done; [N]."""
        same_N, less_N = self._compared(search)
        return less_N | same_N

    def _compared(self, search: Lowest) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        same_N = np.ones(len(self.value_N), dtype=bool)
        less_N = np.zeros(len(self.value_N), dtype=bool)
        for level, wanted in enumerate(search.digits):
            digit_N = self._digit(level)
            less_N |= same_N & (digit_N < wanted)
            same_N &= digit_N == wanted
        return same_N, less_N

    def _digit(self, level: int) -> NDArray[np.int64]:
        if level < VALUE_DIGITS:
            shift = DIGIT_BITS * (VALUE_DIGITS - 1 - level)
            return (self.value_N >> np.uint32(shift)).astype(np.int64) & (BINS - 1)
        if self._hash_N is None:
            self._hash_N = row_hash(self._seed, self._row_N)
        shift = DIGIT_BITS * (HASH_DIGITS - 1 - (level - VALUE_DIGITS))
        return (self._hash_N >> np.uint64(shift)).astype(np.int64) & (BINS - 1)


def _ordered(value_N: NDArray[np.floating]) -> NDArray[np.uint32]:
    """Unsigned numbers in the order of the values as float32; DataError where one is NaN."""
    if np.isnan(value_N).any():
        raise DataError("influence on a row is not a number: lower training.learning_rate")
    bits_N = (value_N.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    sign = np.uint32(1 << 31)
    return np.where(bits_N & sign, ~bits_N, bits_N | sign)

"""Selection by quantile over scattered scorers against an exact sort of the whole block."""

from collections import Counter
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.distillation.boundary import BinCells, CountEl2n, allocate_quotas, band_draw, band_ranks
from diet_ray.distillation.el2n import El2nHistogram, el2n, el2n_bin, label_group, labels_of_group
from diet_ray.distillation.row_choice import row_hash
from diet_ray.distillation.scored_rows import Candidates, ScoredPart
from diet_ray.errors import ConfigError

TASKS = 3


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scorers=st.integers(1, 5),
    decimals=st.integers(2, 7),
    span=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_scattered_bands_have_the_bins_of_an_exact_sort(
    seed: int, scorers: int, decimals: int, span: float
) -> None:
    """Rounding to few decimals makes heavy ties; within a bin the smallest hashes win."""
    draw = np.random.default_rng(seed)
    score_N = (draw.random(3000) * np.sqrt(TASKS)).round(decimals).astype(np.float32)
    group_N = draw.choice(2**TASKS, 3000, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 0, 0])
    shards = [ScoredPart(int(s[0]), score_N[s], group_N[s]) for s in np.array_split(np.arange(3000), scorers)]
    histogram = reduce(El2nHistogram.merged, map(CountEl2n(TASKS), shards))
    quotas = allocate_quotas(histogram.group_counts(), 200, "sqrt")
    wanted = band_draw(histogram, quotas, quantile=0.9, span=span, seed=seed)
    chosen = wanted.chosen([Candidates(wanted, BinCells(TASKS))(shard) for shard in shards])
    assert chosen is not None
    bin_N, hash_N = el2n_bin(score_N, TASKS), row_hash(seed, np.arange(3000))
    for group, quota in quotas.items():
        rows = np.flatnonzero(group_N == group)
        by_rank = rows[np.argsort(score_N[rows], kind="stable")]
        in_bin = Counter(bin_N[by_rank[band_ranks(len(rows), quota, 0.9, span)]].tolist())
        expected: list[int] = []
        for number, count in in_bin.items():
            same = rows[bin_N[rows] == number]
            expected += same[np.argsort(hash_N[same])][:count].tolist()
        assert chosen.row_N[group_N[chosen.row_N] == group].tolist() == sorted(expected)


def test_el2n_by_hand() -> None:
    """sigmoid(0) = 1/2: two tasks both off by a half."""
    score_N = el2n(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(score_N, torch.tensor([0.5**0.5]))


def test_label_group_numbers_every_label_vector_once() -> None:
    label_NT = torch.cartesian_prod(*[torch.tensor([0, 1])] * TASKS)
    assert sorted(label_group(label_NT).tolist()) == list(range(2**TASKS))
    assert torch.equal(labels_of_group(label_group(label_NT), TASKS), label_NT.float())


@given(
    counts=st.dictionaries(st.integers(0, 7), st.integers(1, 500), min_size=1),
    budget=st.integers(8, 1000),
    rule=st.sampled_from(["equal", "sqrt", "proportional"]),
)
def test_quotas_spend_the_budget_within_each_group(counts: dict[int, int], budget: int, rule: str) -> None:
    quotas = allocate_quotas(counts, budget, rule)  # type: ignore[arg-type]
    assert sum(quotas.values()) == min(budget, sum(counts.values()))
    assert all(1 <= quotas[g] <= counts[g] for g in counts)


def test_quota_rules_by_hand() -> None:
    counts = {0: 900, 1: 100}
    assert allocate_quotas(counts, 42, "equal") == {0: 21, 1: 21}
    assert allocate_quotas(counts, 42, "sqrt") == {0: 31, 1: 11}
    assert allocate_quotas(counts, 42, "proportional") == {0: 37, 1: 5}


def test_a_budget_below_one_row_per_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 rows for 3 label groups"):
        allocate_quotas({0: 10, 1: 10, 2: 10}, 2, "equal")


@pytest.mark.parametrize(
    ("count", "quota", "expected"), [(101, 11, (85, 96)), (10, 10, (0, 10)), (10, 5, (5, 10))]
)
def test_band_lies_around_the_percentile(count: int, quota: int, expected: tuple[int, int]) -> None:
    assert band_ranks(count, quota, 0.9, span=0).tolist() == list(range(*expected))


@pytest.mark.parametrize(
    ("quantile", "span", "expected"),
    [
        (0.9, 1.0, [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]),
        (0.5, 0.5, [27, 32, 37, 42, 47, 52, 57, 62, 67, 72]),
        (0.9, 0.5, [52, 57, 62, 67, 72, 77, 82, 87, 92, 97]),  # shifted: it would overhang
    ],
)
def test_a_wide_band_is_taken_at_even_steps(quantile: float, span: float, expected: list[int]) -> None:
    assert band_ranks(100, 10, quantile, span).tolist() == expected


@given(count=st.integers(1, 10**6), share=st.floats(0, 1), quantile=st.floats(0, 1), span=st.floats(0, 1))
def test_ranks_are_distinct_and_exist(count: int, share: float, quantile: float, span: float) -> None:
    quota = min(count, 1 + int(share * count / 100))
    ranks = band_ranks(count, quota, quantile, span)
    assert len(ranks) == quota and ranks[0] >= 0 and ranks[-1] < count
    assert (np.diff(ranks) > 0).all()

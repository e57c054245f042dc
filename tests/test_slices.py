"""Slices of a block: none too large, in order of time, and the same however the rows came in files."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diet_ray.log.preparation import slices
from diet_ray.log.preparation.origin import SOURCES
from diet_ray.log.preparation.prepare import in_process, prepare
from diet_ray.log.preparation.slices import Staged, base_slice, cut_slices, partitioned
from diet_ray.storage import Folder
from tests.shop_log import assert_holds, by_block, contents, shop_rows, shop_schema, write_source

SMALL = 8  # rows of the largest slice, here


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_ROWS", SMALL)
    monkeypatch.setattr(slices, "BINS", 4)


def stage(folder: Folder, ts_N: np.ndarray, interval: tuple[int, int], cuts: list[int]) -> list[Staged]:
    """The rows (their number as `row`) in files that end at `cuts`, cut into base slices."""
    staged = []
    rows = pa.table({"ts": ts_N, "row": np.arange(len(ts_N))})
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(ts_N)], strict=True)):
        file = rows.slice(start, stop - start)
        for place, part in partitioned(file, base_slice(file["ts"].to_numpy(), *interval)):
            path = f"staging/0001/{place:02d}/{number:05d}.parquet"
            folder.write_parquet(path, part)
            staged.append(Staged("0001", place, path, part.num_rows))
    return staged


def rows_of(folder: Folder, interval: tuple[int, int], staged: list[Staged]) -> list[list[tuple[int, int]]]:
    """Time and number of the rows of each slice."""
    cut = cut_slices(folder.root, staged, {"0001": interval}, in_process)["0001"]
    tables = [pa.concat_tables([folder.read_parquet(path) for path in each.paths]) for each in cut]
    return [list(zip(t["ts"].to_pylist(), t["row"].to_pylist(), strict=True)) for t in tables]


@given(
    times=st.lists(st.integers(100, 100_099), min_size=1, max_size=80)
    | st.lists(st.sampled_from([100, 101, 5_000, 100_099]), min_size=1, max_size=80)
    | st.lists(st.integers(100, 130), min_size=30, max_size=80),
    data=st.data(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_slices_are_small_and_in_order_whatever_the_files(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], data: st.DataObject
) -> None:
    ts_N, interval = np.array(times), (100, 100_100)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(times) - 1)), max_size=3)))
    cuts = [cut for cut in cuts if cut < len(times)]
    whole, several = (Folder.at(str(tmp_path_factory.mktemp("slices"))) for _ in range(2))
    found = rows_of(whole, interval, stage(whole, ts_N, interval, []))
    assert sorted(pair for each in found for pair in each) == sorted(
        zip(times, range(len(times)), strict=True)
    )
    for earlier, later in pairwise(found):
        assert max(earlier)[0] <= min(later)[0]
    for each in found:
        if len({ts for ts, _ in each}) > 1:
            assert len(each) <= SMALL
        assert [row for _, row in each] == sorted(row for _, row in each), "not as they came"
    assert rows_of(several, interval, stage(several, ts_N, interval, cuts)) == found


def test_rows_of_one_moment_are_spread_over_slices(tmp_path: Path) -> None:
    folder, interval = Folder.at(str(tmp_path)), (0, 1000)
    found = rows_of(folder, interval, stage(folder, np.full(400, 77), interval, [100, 250]))
    assert len(found) == 400 // SMALL
    assert max(map(len, found)) < 4 * SMALL


def test_a_log_of_many_slices_is_the_log_of_few_in_other_files(tmp_path: Path, shop_log: Path) -> None:
    rows = shop_rows()
    log = prepare(shop_schema(), str(shop_log / "source"), str(tmp_path / "out"))
    assert_holds(log, tmp_path / "out", by_block(rows))
    assert all(part.rows <= SMALL for block in log.blocks.values() for part in block.parts)
    for number, some in enumerate((rows[:100], rows[100:130], rows[130:])):
        source = write_source(tmp_path / "several", some, f"{number}.parquet")
    prepare(shop_schema(), source, str(tmp_path / "of several"))
    assert contents(tmp_path / "of several") | {SOURCES: b""} == contents(tmp_path / "out") | {SOURCES: b""}


def test_a_log_with_a_time_in_days_prepares_in_many_slices(tmp_path: Path) -> None:
    rows = shop_rows()
    rows["ts"] = rows["ts"].dt.floor("30D")
    moments = [pd.Timestamp(edge) for edge in ("2017-07-02", "2017-08-16", "2017-09-02")]
    more = pd.concat([rows.assign(ts=moment) for moment in moments])
    rows = pd.concat([rows[rows["ts"] < "2017-07-01"], more], ignore_index=True)
    log = prepare(shop_schema(), write_source(tmp_path / "source", rows), str(tmp_path / "out"))
    assert_holds(log, tmp_path / "out", by_block(rows))

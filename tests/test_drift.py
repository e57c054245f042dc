"""The generated log is one function of its settings, drifts as they say, and knows its own truth."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from diet_ray.errors import DataError
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.drift import DAY_MS, START, TABS, TASKS, DriftConfig, World, drift_schema, write_drift_log
from tests.shop_log import contents, times

START_MS = pd.Timestamp(START).value // 10**6
KINDS = ("none", "gradual", "abrupt", "recurring", "churn")


def config(**settings: Any) -> DriftConfig:
    return DriftConfig(**{"rows": 4_000, "users": 200, "items": 150, **settings})


def rows_of(**settings: Any) -> pd.DataFrame:
    """All rows, with their place in the log in [0, 1] as column `place`."""
    chosen = config(**settings)
    rows = World(chosen).rows(0, chosen.rows).to_pandas()
    return rows.assign(place=(rows["time_ms"] - START_MS) / (chosen.days * DAY_MS))


def chances(world: World, place: float) -> np.ndarray:
    """True probabilities of the same 500 pairs and tabs, at one place in the log."""
    draw = np.random.default_rng(0)
    user_N, item_N, tab_N = (draw.integers(high, size=500) for high in (200, 150, TABS))
    return world.probabilities(np.full(500, place), user_N, item_N, tab_N)


def test_one_setting_is_one_log_to_the_bit(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_drift_log(config(), str(tmp_path / name))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_is_another_log() -> None:
    one, other = rows_of(seed=0), rows_of(seed=1)
    for column in ("time_ms", "user_id", "video_id", "is_click", "true_is_click"):
        assert not one[column].equals(other[column])


def test_a_file_is_the_same_whether_or_not_those_before_it_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diet_ray.log.drift.FILE_ROWS", 1_500)
    source = Path(write_drift_log(config(), str(tmp_path)))
    files = [pd.read_parquet(path) for path in sorted(source.glob("*.parquet"))]
    assert [len(rows) for rows in files] == [1_500, 1_500, 1_000]
    assert files[2].equals(World(config()).rows(3_000, 4_000).to_pandas())
    assert not files[0]["tab"].equals(files[1]["tab"]), "files repeat each other"
    assert pd.concat(files)["time_ms"].is_monotonic_increasing


def test_a_log_that_is_there_is_kept_and_one_of_other_settings_is_refused(tmp_path: Path) -> None:
    source = Path(write_drift_log(config(), str(tmp_path)))
    before = {path: path.stat().st_mtime_ns for path in source.iterdir()}
    assert write_drift_log(config(), str(tmp_path)) == str(source)
    assert all(path.suffix == ".parquet" for path in before), "only rows lie in source"
    with pytest.raises(
        DataError, match=rf"{tmp_path} holds a drift log of other settings \(drift\.\w+: the log has"
    ):
        write_drift_log(config(seed=1), str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in source.iterdir()} == before


def test_a_log_whose_making_was_cut_off_is_made_again(tmp_path: Path) -> None:
    source = Path(write_drift_log(config(), str(tmp_path)))
    whole = contents(source)
    (tmp_path / "drift.json").unlink()
    (source / "part-00000.parquet").write_bytes(b"half a file")
    write_drift_log(config(), str(tmp_path))
    assert contents(source) == whole


def test_a_log_made_by_0_1_0_is_kept(tmp_path: Path) -> None:
    source = Path(write_drift_log(config(), str(tmp_path)))
    (tmp_path / "drift.json").rename(source / "drift.json")
    before = {path: path.stat().st_mtime_ns for path in source.iterdir()}
    write_drift_log(config(), str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in source.iterdir()} == before


@pytest.mark.parametrize(
    "settings", [{"rows": 999}, {"days": 4}, {"kind": "sudden"}, {"strength": 1.1}, {"row": 1}]
)
def test_a_setting_out_of_range_is_refused_under_its_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        config(**settings)


def test_nested_tasks_are_nested_and_independent_ones_are_not() -> None:
    for tasks in ("nested", "independent"):
        rows = rows_of(tasks=tasks)
        for prefix in ("", "true_"):
            click, view, like = (rows[f"{prefix}{task}"] for task in TASKS)
            nested = ((like <= view) & (view <= click)).all()
            assert nested if tasks == "nested" else not nested


@pytest.mark.parametrize("tasks", ["nested", "independent"])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_drawn_from_their_true_probabilities(kind: str, tasks: str) -> None:
    """Their means agree within four standard errors, and no shuffled truth ranks them better."""
    rows, draw = rows_of(kind=kind, tasks=tasks), np.random.default_rng(0)
    for task in TASKS:
        label, true = rows[task].to_numpy(), rows[f"true_{task}"].to_numpy()
        error = np.sqrt((true * (1 - true)).sum()) / len(true)
        assert abs(label.mean() - true.mean()) < 4 * error
        shuffled = [roc_auc_score(label, draw.permutation(true)) for _ in range(10)]
        assert roc_auc_score(label, true) > max(shuffled)


def test_the_truth_in_the_files_is_that_of_the_world() -> None:
    """Up to the time, which the files hold to the millisecond."""
    world, rows = World(config()), rows_of()
    who = (rows[name].to_numpy() for name in ("user_id", "video_id", "tab"))
    found = world.probabilities(rows["place"].to_numpy(), *who)
    np.testing.assert_allclose(found, rows[[f"true_{task}" for task in TASKS]], atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "same", "other"),
    [
        ("none", [0.25, 0.5, 0.99], []),
        ("churn", [0.25, 0.5, 0.99], []),
        ("gradual", [], [0.25, 0.5, 0.99]),
        ("abrupt", [0.25, 0.49], [0.5, 0.75]),
        ("recurring", [0.5], [0.1, 0.25, 0.75]),
    ],
)
def test_tastes_turn_as_the_kind_of_drift_says(kind: str, same: list[float], other: list[float]) -> None:
    """Compared with the beginning of the log."""
    world = World(config(kind=kind))
    first = chances(world, 0.0)
    for place in same:
        np.testing.assert_allclose(chances(world, place), first, atol=1e-12)
    for place in other:
        assert abs(chances(world, place) - first).mean() > 0.01


def test_gradual_drift_moves_further_with_time_and_with_strength() -> None:
    moved = {
        (strength, place): abs(chances(world, place) - chances(world, 0.0)).mean()
        for strength in (0.0, 0.4, 0.8)
        for world in [World(config(strength=strength))]
        for place in (0.3, 0.6, 0.9)
    }
    assert all(moved[0.0, place] == 0 for place in (0.3, 0.6, 0.9))
    for strength in (0.4, 0.8):
        assert moved[strength, 0.3] < moved[strength, 0.6] < moved[strength, 0.9]
    assert moved[0.4, 0.9] < moved[0.8, 0.9]


def test_items_die_out_with_churn_and_stay_without_drift() -> None:
    """Of the last tenth of the log, the share of rows on items that the first tenth knew."""
    share = {}
    for kind in ("none", "gradual", "churn"):
        rows = rows_of(kind=kind)
        known = rows.loc[rows["place"] < 0.1, "video_id"]
        share[kind] = rows.loc[rows["place"] > 0.9, "video_id"].isin(known).mean()
    assert share["churn"] < share["gradual"] < share["none"]
    assert share["churn"] < share["none"] / 2


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_comes_before_joining_and_nothing_before_it_is_out(kind: str) -> None:
    """Within the six hours for which a slice of the log draws; without drift all items are out at once."""
    world, rows = World(config(kind=kind)), rows_of(kind=kind)
    late = rows["place"] + 1 / (4 * world.config.days)
    assert (world.joined_U[rows["user_id"]] <= late).all()
    if kind != "none":
        assert (world.born_V[rows["video_id"]] <= late).all()


def test_side_features_belong_to_the_user_or_the_item() -> None:
    rows, world = rows_of(), World(config())
    for key, names in {
        "user_id": world.user_side,
        "video_id": [*world.item_side, "author_id", "music_id"],
    }.items():
        assert (rows.groupby(key)[list(names)].nunique() == 1).all(axis=None)


@pytest.mark.parametrize("days", [5, 7, 10, 30])
def test_the_blocks_follow_each_other_and_cover_every_row(days: int) -> None:
    intervals = list(drift_schema(config(days=days)).intervals().values())
    assert len(intervals) == 6
    assert all(a[1] == b[0] for a, b in pairwise(intervals))
    assert (intervals[0][0], intervals[-1][1]) == (START_MS, START_MS + days * DAY_MS)
    assert len({end - start for start, end in intervals[:3]}) == 1
    time = rows_of(days=days)["time_ms"]
    assert time.is_monotonic_increasing
    for start, end in intervals:
        assert ((time >= start) & (time < end)).any()
    assert time.between(intervals[0][0], intervals[-1][1] - 1).all()


def test_a_prepared_drift_log_holds_every_row_and_nested_labels_only(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    assert sum(block.rows for block in log.blocks.values()) == 6_000
    assert set(log.left_out.values()) == {0}
    assert pd.concat([times(log, block) for block in log.blocks.values()]).is_monotonic_increasing
    assert all(set(block.label_groups) <= {0b000, 0b001, 0b011, 0b111} for block in log.blocks.values())
    assert not any(name.startswith("true_") for name in log.fields)

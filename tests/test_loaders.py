"""The built-in schemas read real rows of their data sets as pandas does."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diet_ray.log.batches import joined
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.schema import LogSchema, load_schema, parse_schema
from tests.shop_log import BLOCKS, Frames, as_ms, as_text, assert_holds, decoded, known_by_then, row_counts

TMALL_ROWS = 400


def with_edges(dataset: str, edges: list[str], **changes: Any) -> LogSchema:
    """The built-in schema with two historical blocks and the rest cut at `edges`."""
    cuts = [list(pair) for pair in itertools.pairwise(edges)]
    blocks = {"history": cuts[:2], **dict(zip(BLOCKS[2:], cuts[2:], strict=True))}
    return parse_schema({**load_schema(dataset).plain(), "blocks": blocks, **changes}, dataset)


def cut(rows: pd.DataFrame, local: pd.Series, edges: list[str]) -> Frames:
    block_N = pd.cut(local, pd.to_datetime(edges), right=False, labels=BLOCKS)
    return {name: rows[block_N == name] for name in BLOCKS}


def local_times(ms: pd.Series, zone: str) -> pd.Series:
    return pd.to_datetime(ms, unit="ms", utc=True).dt.tz_convert(zone).dt.tz_localize(None)


def texts(rows: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({field: as_text(rows[column]) for field, column in columns.items()})


def linked(folder: Path, **files: Path) -> str:
    """A folder with links to the files under the names that the publisher gives them."""
    folder.mkdir()
    for name, path in files.items():
        (folder / name).symlink_to(path)
    return str(folder)


def test_kuairand_joins_users_and_videos(shared_data: Path, tmp_path: Path) -> None:
    """The sample has no tab and no is_like, is cut by tabs, and most of its videos are in no side table."""
    there = shared_data / "kuairand_sample"
    names = {"log_standard_4_08_to_4_21_27k.csv.gz": "processed_standard_kcore_15.tsv.gz"}
    names |= {name: name for name in ("user_features_pure.csv", "video_features_basic_pure.csv")}
    source = linked(tmp_path / "source", **{name: there / path for name, path in names.items()})
    built_in = load_schema("kuairand").plain()
    edges = ["2022-04-08", "2022-04-12", "2022-04-16", "2022-04-19", "2022-04-20", "2022-04-22"]
    schema = with_edges(
        "kuairand",
        edges,
        files={**built_in["files"], "separator": "\t"},
        fields=[field for field in built_in["fields"] if field["name"] != "tab"],
        tasks=["is_click", "long_view", "is_follow"],
    )
    log = prepare(schema, source, str(tmp_path / "out"))

    rows = pd.read_csv(there / "processed_standard_kcore_15.tsv.gz", sep="\t")
    # Ids of a side table are text as written.
    as_written = {"dtype": str, "keep_default_na": False, "na_values": [""]}
    users, videos = (
        pd.read_csv(there / f"{name}_pure.csv", **as_written).astype({key: "int64"})
        for name, key in (("user_features", "user_id"), ("video_features_basic", "video_id"))
    )
    rows = rows.merge(users, on="user_id", how="left", suffixes=("", "_u"))
    rows = rows.merge(videos, on="video_id", how="left", suffixes=("", "_v"), indicator="matched")
    frame = texts(rows, {name: name for name in schema.field_names})
    frame[list(schema.task_names)] = rows[list(schema.task_names)]
    frame["ts"] = rows["time_ms"]
    frames = cut(frame, local_times(rows["time_ms"], "Asia/Shanghai"), edges)
    assert_holds(log, tmp_path / "out", frames)
    assert log.left_out["outside of every block"] == len(rows) - sum(map(len, frames.values())) > 0

    matched = (rows["matched"] == "both")[frames["0001"].index]
    assert matched.any() and not matched.all()
    found = decoded(log, tmp_path / "out")["0001"]
    keys = ["ts", "user_id", "video_id"]
    wanted = frames["0001"][keys].assign(has_author=matched)
    assert row_counts(found[keys].assign(has_author=found["author_id"].notna())) == row_counts(wanted)


def test_taobao_reads_a_file_without_a_header(shared_data: Path, tmp_path: Path) -> None:
    """All rows of the slice lie within two hours of one morning in Shanghai."""
    path = shared_data / "taobao_slice" / "UserBehavior.csv"
    edges = [f"2017-11-26T{time}" for time in ("09:00", "09:30", "10:00", "10:30", "10:50", "11:30")]
    schema = with_edges("taobao", edges)
    log = prepare(schema, linked(tmp_path / "source", **{"UserBehavior.csv": path}), str(tmp_path / "out"))

    rows = pd.read_csv(path, header=None, names=["user", "item", "category", "behaviour", "s"])
    local = local_times(rows["s"] * 1000, "Asia/Shanghai")
    frame = texts(rows, {name: name for name in ("user", "item", "category")})
    frame["hour"] = as_text(local.dt.hour)
    frame["ts"] = rows["s"] * 1000
    for task in ("pv", "buy", "fav"):
        frame[task] = (rows["behaviour"] == task).astype(int)
    frames = cut(frame, local, edges)
    assert_holds(log, tmp_path / "out", frames)
    assert sum(len(frame) for frame in frames.values()) == len(rows)
    assert log.left_out == {"outside of every block": 0, "quarantined": 0}


def test_globo_drops_first_clicks_and_nests_its_tasks(shared_data: Path, tmp_path: Path) -> None:
    days = [shared_data / "globo" / f"day={day}.parquet" for day in (14, 15)]
    edges = ["2017-10-14T03:00", "2017-10-14T15:00", "2017-10-15T03:00"]
    edges += ["2017-10-15T15:00", "2017-10-15T20:00", "2017-10-16T03:00"]
    schema = with_edges("globo", edges)
    log = prepare(schema, linked(tmp_path / "source", **{p.name: p for p in days}), str(tmp_path / "out"))

    rows = pd.concat([pd.read_parquet(path) for path in days], ignore_index=True)
    rows = rows[rows["pos_in_session"] > 0]
    local = local_times(rows["click_timestamp"], "UTC")
    published = {field.name: field.source for field in schema.fields if field.part is None}
    frame = texts(rows.assign(pos_in_session=rows["pos_in_session"].clip(upper=8)), published)
    frame["hour"], frame["weekday"] = as_text(local.dt.hour), as_text(local.dt.dayofweek)
    frame["has_next"] = (rows["n_after"] > 0).astype(int)
    frame["has_two_more"] = (rows["n_after"] > 1).astype(int)
    frame["next_same_cat"] = rows["next_same_cat"]
    frame["ts"] = rows["click_timestamp"]
    assert_holds(log, tmp_path / "out", cut(frame, local, edges))

    for block in log.blocks.values():
        label_NT = joined(list(log.chunks(block))).label_NT
        has_next_N, others_NT = label_NT[:, 0], label_NT[:, 1:]
        assert (others_NT <= has_next_N[:, None]).all()
        assert 0 < has_next_N.mean() < 1


def tmall_rows() -> pd.DataFrame:
    """Rows as published: some days outside of the schema's blocks, some brands missing."""
    draw = np.random.default_rng(0)
    days = pd.date_range("2014-04-28", "2014-11-12")
    late = np.isin(np.arange(TMALL_ROWS) % 10, (0, 1))
    day_N = days[
        np.where(late, draw.integers(126, 128, TMALL_ROWS), draw.integers(len(days), size=TMALL_ROWS))
    ]
    columns = {
        name: draw.integers(high, size=TMALL_ROWS) for name, high in {"item_id": 50, "cat_id": 9}.items()
    }
    return pd.DataFrame(
        {
            "user_id": draw.integers(328_860, 328_890, TMALL_ROWS),
            **columns,
            "seller_id": draw.integers(20, size=TMALL_ROWS),
            "brand_id": pd.array(draw.integers(1, 20, TMALL_ROWS), "Int64"),
            "time_stamp": day_N.month * 100 + day_N.day,
            "action_type": draw.integers(4, size=TMALL_ROWS),
        }
    ).assign(brand_id=lambda rows: rows["brand_id"].where(draw.uniform(size=TMALL_ROWS) < 0.8))


def tmall_users() -> pd.DataFrame:
    """Some users of the log, some of them of unknown age or gender, and some that it does not hold."""
    number = np.arange(328_870, 328_900)
    age = pd.array(np.where(number % 5, number % 9, 0), "Int64")
    gender = pd.array(number % 3, "Int64")
    return pd.DataFrame({"user_id": number, "age_range": age, "gender": gender}).assign(
        age_range=lambda users: users["age_range"].where(number % 4 > 0),
        gender=lambda users: users["gender"].where(number % 7 > 0),
    )


def test_tmall_reads_month_and_day_and_joins_users(tmp_path: Path) -> None:
    rows, source = tmall_rows(), tmp_path / "source"
    source.mkdir()
    rows.to_csv(source / "user_log_format1.csv", index=False)
    tmall_users().to_csv(source / "user_info_format1.csv", index=False)
    assert ",," in (source / "user_log_format1.csv").read_text()
    log = prepare(load_schema("tmall"), str(source), str(tmp_path / "out"))

    rows = rows.merge(tmall_users(), on="user_id", how="left")
    month, day = rows["time_stamp"] // 100, rows["time_stamp"] % 100
    names = ("user_id", "age_range", "gender", "item_id", "seller_id", "brand_id")
    frame = texts(rows, {name: name for name in names} | {"category": "cat_id"})
    date = pd.to_datetime({"year": 2014, "month": month, "day": day})
    frame["weekday"] = as_text(date.dt.dayofweek)
    frame["ts"] = as_ms(date.dt.tz_localize("Asia/Shanghai"))
    for task, action in {"click": 0, "purchase": 2, "favourite": 3}.items():
        frame[task] = (rows["action_type"] == action).astype(int)
    frames = {f"000{m - 4}": frame[month == m] for m in (5, 6, 7)} | {"subsequent": frame[month == 8]}
    frames |= {name: frame[rows["time_stamp"] == d] for name, d in {"validation": 901, "test": 902}.items()}
    assert_holds(log, tmp_path / "out", frames)
    assert log.left_out["outside of every block"] == len(rows) - sum(map(len, frames.values())) > 0
    known = known_by_then(frames, log.fields)["subsequent"]
    assert known[["age_range", "gender", "brand_id"]].isna().any().all()

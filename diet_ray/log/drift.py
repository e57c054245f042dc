"""A generated log in the shape of KuaiRand whose users and items drift in a known way.

Every file also holds the true probability of each task (columns true_<task>), which the schema does not read:
the best AUC and LogLoss that any model could have are known.

Shape suffixes: N rows, U users, V items, K tastes, T tasks.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from diet_ray.errors import DataError
from diet_ray.lease import Lease
from diet_ray.log.drift_config import DriftConfig
from diet_ray.log.schema import LogSchema, parse_schema
from diet_ray.seeding import numpy_generator
from diet_ray.storage import Folder
from diet_ray.strict import differences

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

TASKS = ("is_click", "long_view", "is_like")
BASE_LOGIT = {"nested": (0.0, 0.0, -1.5), "independent": (0.0, -1.0, -2.5)}
TASTES = 8
TABS = 12
FILE_ROWS = 1_000_000
START = "2022-04-16"
DAY_MS = 86_400_000
# Side features and their levels: KuaiRand's columns.
USER_LEVELS = {
    "user_active_degree": 4,
    "is_live_streamer": 2,
    "is_video_author": 2,
    "follow_user_num_range": 8,
    "fans_user_num_range": 9,
    "friend_user_num_range": 7,
    "register_days_range": 8,
}
ITEM_LEVELS = {"video_type": 2, "upload_type": 10, "visible_status": 3, "music_type": 5, "tag": 60}
FIELDS = ("user_id", "video_id", *USER_LEVELS, "author_id", *ITEM_LEVELS, "music_id", "tab")


def drift_schema(config: DriftConfig) -> LogSchema:
    """Three equal historical blocks, then the subsequent one, and one day each to validate and to test."""
    history, subsequent = round(0.75 * (config.days - 2)), config.days - 2
    day = [str(pd.Timestamp(START) + pd.Timedelta(days=d)) for d in range(config.days + 1)]
    blocks = {
        "history": {"start": day[0], "end": day[history], "parts": 3},
        "subsequent": [day[history], day[subsequent]],
        "validation": [day[subsequent], day[-2]],
        "test": [day[-2], day[-1]],
    }
    time = {"column": "time_ms", "unit": "ms"}
    return parse_schema(
        {"name": "drift", "time": time, "fields": FIELDS, "tasks": TASKS, "blocks": blocks}, "drift"
    )


def write_drift_log(config: DriftConfig, out: str) -> str:
    """Generate the raw log under out/source, unless it is there, and return that directory.

    Raises:
        DataError: where another log was generated there.
        RunError: where another process is generating one.
    """
    folder = Folder.at(out)
    if not _is_written(folder, config):
        with Lease(folder):
            if not _is_written(folder, config):
                _write(folder, config)
    return folder / "source"


def _is_written(folder: Folder, config: DriftConfig) -> bool:
    # 0.1.0 kept the settings among the files of the log.
    written = next((p for p in ("drift.json", "source/drift.json") if folder.exists(p)), None)
    if written is None:
        return False
    if changed := differences(folder.read_json(written), config.model_dump(mode="json"), "drift.", "log"):
        raise DataError(
            f"{folder.root} holds a drift log of other settings ({changed}); choose another directory"
        )
    return True


def _write(folder: Folder, config: DriftConfig) -> None:
    world = World(config)
    for number, start in enumerate(range(0, config.rows, FILE_ROWS)):
        rows = world.rows(start, min(start + FILE_ROWS, config.rows))
        folder.write_parquet(f"source/part-{number:05d}.parquet", rows)
    folder.write_json("drift.json", config.model_dump(mode="json"))


class World:
    """Who there is and what they like; `rows` is a function of the config and the row numbers' file alone."""

    def __init__(self, config: DriftConfig) -> None:
        self.config = config
        draw = numpy_generator(config.seed, "drift", "world")
        self.user_side = {name: draw.integers(n, size=config.users) for name, n in USER_LEVELS.items()}
        self.item_side = {name: draw.integers(n, size=config.items) for name, n in ITEM_LEVELS.items()}
        self.author_V = draw.integers(max(1, config.items // 10), size=config.items)
        self.music_V = draw.integers(max(1, config.items // 5), size=config.items)
        # Side features carry half of what there is to know, so that new users and items are not a coin toss.
        explained = ("user_active_degree", "fans_user_num_range", "register_days_range")
        self.before_UK = _vectors(draw, [self.user_side[name] for name in explained], config.users)
        self.after_UK = _vectors(draw, [self.user_side[name] for name in explained], config.users)
        self.item_VK = _vectors(draw, [self.item_side["tag"], self.author_V], config.items)
        self.task_TKK = draw.normal(size=(len(TASKS), TASTES, TASTES)) / np.sqrt(TASTES)
        self.quality_VT = 0.6 * draw.normal(size=(config.items, len(TASKS)))
        self.tab_T = 0.5 * draw.normal(size=(TABS, len(TASKS)))
        self.activity_U = draw.pareto(1.5, config.users) + 0.1
        self.popularity_V = draw.pareto(1.2, config.items) + 0.1
        self.joined_U = draw.uniform(-3, 1, config.users)  # a quarter of the users come during the log
        self.born_V = draw.uniform(-1, 1, config.items)
        self.joined_U[0], self.born_V[0] = -3, -1  # someone and something is always there

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop) of the log, in order of time."""
        draw = numpy_generator(self.config.seed, "drift", "rows", start)
        time_N = np.sort(draw.uniform(start, stop, stop - start)) / self.config.rows
        user_N, item_N = self._who(time_N, draw)
        tab_N = draw.integers(TABS, size=len(time_N))
        true_NT = self.probabilities(time_N, user_N, item_N, tab_N)
        label_NT = self._labels(true_NT, draw)
        began_ms = int(pd.Timestamp(START, tz="UTC").timestamp() * 1000)
        columns: dict[str, Any] = {
            "time_ms": began_ms + (time_N * self.config.days * DAY_MS).astype(np.int64),
            "user_id": user_N,
            "video_id": item_N,
            **{name: level_U[user_N] for name, level_U in self.user_side.items()},
            "author_id": self.author_V[item_N],
            **{name: level_V[item_N] for name, level_V in self.item_side.items()},
            "music_id": self.music_V[item_N],
            "tab": tab_N,
        }
        columns |= {task: label_NT[:, t].astype(np.uint8) for t, task in enumerate(TASKS)}
        columns |= {f"true_{task}": true_NT[:, t] for t, task in enumerate(TASKS)}
        return pa.table(columns)

    def probabilities(self, time_N: Array, user_N: Ids, item_N: Ids, tab_N: Ids) -> Array:
        """The true probability of each task; time in [0, 1); [N, T]."""
        angle_N = self.config.strength * np.pi / 2 * self._turned(time_N)
        taste_NK = (
            np.cos(angle_N)[:, None] * self.before_UK[user_N]
            + np.sin(angle_N)[:, None] * self.after_UK[user_N]
        )
        liking_NT = np.einsum("nk,tkj,nj->nt", taste_NK, self.task_TKK, self.item_VK[item_N], optimize=True)
        base_T = np.array(BASE_LOGIT[self.config.tasks])
        logit_NT = base_T + 0.7 * liking_NT + self.quality_VT[item_N] + self.tab_T[tab_N]
        chance_NT = 1 / (1 + np.exp(-logit_NT))
        return chance_NT.cumprod(1) if self.config.tasks == "nested" else chance_NT

    def _turned(self, time_N: Array) -> Array:
        """How far tastes have turned, in [0, 1]."""
        match self.config.kind:
            case "gradual":
                return time_N
            case "abrupt":
                return (time_N >= 0.5).astype(np.float64)
            case "recurring":
                return np.sin(2 * np.pi * time_N) ** 2
            case _:
                return np.zeros_like(time_N)

    def _who(self, time_N: Array, draw: np.random.Generator) -> tuple[Ids, Ids]:
        """Users who have joined and items that are out, by activity and by popularity that fades with age."""
        users, items = np.empty(len(time_N), np.int64), np.empty(len(time_N), np.int64)
        slices = max(1, round(len(time_N) / self.config.rows * self.config.days * 4))  # six hours each
        for place in np.array_split(np.arange(len(time_N)), slices):
            moment = time_N[place].mean()
            users[place] = _drawn(self.activity_U * (self.joined_U <= moment), len(place), draw)
            items[place] = _drawn(self.popularity_V * self._alive(moment), len(place), draw)
        return users, items

    def _alive(self, moment: float) -> Array:
        if self.config.kind == "none":
            return np.ones_like(self.born_V)
        life = 0.1 if self.config.kind == "churn" else 0.4
        return np.where(self.born_V <= moment, np.exp(-(moment - self.born_V) / life), 0.0)

    def _labels(self, true_NT: Array, draw: np.random.Generator) -> NDArray[np.bool_]:
        if self.config.tasks == "nested":
            # One draw decides how far a row gets: the marginals are the products and the labels nested.
            return draw.uniform(size=(len(true_NT), 1)) < true_NT
        return draw.uniform(size=true_NT.shape) < true_NT


def _vectors(draw: np.random.Generator, levels: list[Ids], count: int) -> Array:
    """Unit-variance vectors, half of the variance from shared centres of the levels."""
    centres = [draw.normal(size=(int(level.max()) + 1, TASTES))[level] for level in levels]
    return (np.sum(centres, axis=0) / np.sqrt(len(levels)) + draw.normal(size=(count, TASTES))) / np.sqrt(2)


def _drawn(weight: Array, count: int, draw: np.random.Generator) -> Ids:
    return np.searchsorted(weight.cumsum() / weight.sum(), draw.uniform(size=count), side="right")

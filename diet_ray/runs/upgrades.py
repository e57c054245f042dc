"""Settings that version 0.1 stored, in today's form."""

from collections.abc import Mapping
from typing import Any

from diet_ray.config import RENAMED_KEYS, section

# Keys that version 0.1 did not have: path of the key -> what its runs are resumed with.
ADDED_KEYS = {"method.outer.hard_share": 0.5}


def upgrade_config(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a stored run with today's keys in place of those of version 0.1."""
    upgraded = _copied(stored)
    for path, new in RENAMED_KEYS.items():
        *parents, old = path.split(".")
        keys = section(upgraded, parents)
        if old in keys:
            keys[new] = keys.pop(old)
    for path, value in ADDED_KEYS.items():
        *parents, key = path.split(".")
        section(upgraded, parents).setdefault(key, value)
    outer = section(upgraded, ["method", "outer"])
    if "active_rows" in outer and outer["active_rows"] is None:
        outer["active_rows"] = "auto"
    return upgraded


def upgrade_fit(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings of a fit with "auto" where version 0.1 wrote null."""
    weight = stored.get("rehearsal_weight", "auto")
    return {**stored, "rehearsal_weight": "auto" if weight is None else weight}


def _copied(value: Any) -> Any:
    return {key: _copied(v) for key, v in value.items()} if isinstance(value, Mapping) else value

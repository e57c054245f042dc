"""The config of a stored run, as earlier versions wrote it."""

from collections.abc import Mapping
from typing import Any

OF_LOG = ("log", "fingerprint", "stream")  # keys of a run's config.yaml that are not those of RunConfig
# Keys of RunConfig that had another name up to version 0.1: path of the old key -> new name.
RENAMED_KEYS = {
    "width": "dim",
    "reference.beside": "ensemble",
    "method.boundary.percentile": "quantile",
    "method.boundary.width": "span",
    "method.boundary.carry": "realign",
}
# Keys that version 0.1 did not have: path of the key -> what its runs are resumed with.
ADDED_KEYS = {"method.outer.hard_share": 0.5}


def upgrade_config(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a stored run with today's keys in place of those of version 0.1."""
    upgraded = _copied(stored)
    for path, new in RENAMED_KEYS.items():
        *parents, old = path.split(".")
        section = section_of(upgraded, parents)
        if old in section:
            section[new] = section.pop(old)
    for path, value in ADDED_KEYS.items():
        *parents, key = path.split(".")
        section_of(upgraded, parents).setdefault(key, value)
    outer = section_of(upgraded, ["method", "outer"])
    if "active_rows" in outer and outer["active_rows"] is None:
        outer["active_rows"] = "auto"
    return upgraded


def upgrade_fit(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings of a fit with "auto" where version 0.1 wrote null."""
    weight = stored.get("rehearsal_weight", "auto")
    return {**stored, "rehearsal_weight": "auto" if weight is None else weight}


def section_of(value: Any, parents: list[str]) -> Any:
    """The mapping below `parents`; an empty one where there is none."""
    for parent in parents:
        value = value.get(parent, {}) if isinstance(value, Mapping) else {}
    return value if isinstance(value, Mapping) else {}


def _copied(value: Any) -> Any:
    return {key: _copied(v) for key, v in value.items()} if isinstance(value, Mapping) else value

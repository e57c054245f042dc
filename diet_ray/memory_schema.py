"""The schema in a memory's file, and names of label groups: without PyTorch, for commands that only look."""

import json
from typing import NamedTuple

import pyarrow as pa

from diet_ray.errors import RunError

METADATA_KEY = b"diet_ray"


class MemorySchema(NamedTuple):
    """What must agree before a memory may be used; stored in the file's schema metadata."""

    fields: tuple[str, ...]
    dim: int
    tasks: tuple[str, ...]


def stored_schema(table: pa.Table) -> MemorySchema:
    """The schema in a memory file's metadata; RunError where the table is not a memory."""
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise RunError("not a diet_ray memory: its schema metadata has no diet_ray entry")
    try:
        stored = json.loads(metadata)
        return MemorySchema(tuple(stored["fields"]), stored["width"], tuple(stored["tasks"]))
    except (ValueError, KeyError, TypeError) as broken:
        raise RunError(f"not a diet_ray memory: its metadata is malformed ({broken})") from broken


def group_name(group: int, tasks: tuple[str, ...]) -> str:
    """The tasks that are 1 in a label group, joined by +."""
    return "+".join(task for t, task in enumerate(tasks) if group >> t & 1) or "none"

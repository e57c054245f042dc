"""How often ids occur, counted piece by piece and merged."""

from collections.abc import Iterable

import pyarrow as pa


def counted(ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Columns id and count; each id once, a missing one included."""
    values, count = ids.value_counts().flatten()
    return pa.table({"id": values, "count": count})


def merged_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """The sums of several `counted`."""
    both = pa.concat_tables(tables)
    return both.group_by("id").aggregate([("count", "sum")]).rename_columns(["id", "count"])

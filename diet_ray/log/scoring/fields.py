"""The fields of rows that are to be scored: a log's schema without labels, filters and event ids.

Shape suffixes: N rows.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from diet_ray import layout
from diet_ray.log.normalise import normalise
from diet_ray.log.schema import parse_schema
from diet_ray.log.scoring.raw_rows import RawRows, chunk_of
from diet_ray.log.side_tables import Joined
from diet_ray.log.source import Chunk
from diet_ray.storage import Folder


class FieldTexts(NamedTuple):
    """The fields of a chunk's rows before they are encoded."""

    texts: pa.Table  # a column of ids per field, text; null where missing
    row_N: NDArray[np.int64]  # numbers of the rows that could be read, from 1
    rejected: pa.Table  # the other rows, as log.normalise has them


class FieldReader:
    """Takes the fields out of raw rows as `prepare` does; knows no vocabulary."""

    def __init__(self, folder: Folder) -> None:
        """folder: of an exported model, with what `write_encoding` wrote.

        Side tables that a log of version 0.1 did not keep are not joined: the rows bring their columns.
        """
        plain = yaml.safe_load(folder.read(layout.MODEL_SCHEMA))
        schema = parse_schema(plain, folder / layout.MODEL_SCHEMA).unlabelled()
        kept = {n: join for n, join in enumerate(schema.join) if folder.exists(layout.side_table(n))}
        self.schema = schema.model_copy(update={"join": tuple(kept.values())})
        self.sides = [Joined(kept[n].on, folder.read_parquet(layout.side_table(n))) for n in kept]

    def needed_columns(self) -> list[str]:
        """Columns that rows must have: those that the model's own side tables do not bring."""
        joined = {name for side in self.sides for name in side.table.column_names if name != side.on}
        return [name for name in self.schema.columns() if name not in joined]

    def of_rows(self, rows: RawRows) -> FieldTexts:
        """The fields of rows in memory; DataError where a column is missing, or as for `of_chunk`."""
        return self.of_chunk(chunk_of(rows, self.schema, self.sides))

    def of_chunk(self, chunk: Chunk) -> FieldTexts:
        """The fields of the rows that can be read.

        Raises DataError naming the first row that cannot, where the schema does not say `quarantine`.
        """
        # Columns that are only kept may hold anything.
        own = [name for name in chunk.table.column_names if name in self.schema.columns()]
        normal = normalise(chunk._replace(table=chunk.table.select(own)), self.schema)
        texts = normal.rows.select(list(self.schema.field_names))
        return FieldTexts(texts, normal.row.to_numpy(), normal.rejected)

"""What an exported model needs of its log to encode raw rows.

schema.yaml               the log's schema
vocabulary/FIELD.parquet  the ids that the table of a field knows (columns id, row); none where ids are hashed
side/N.parquet            the side tables of the schema's `join`, in its order

Shape suffixes: N rows, F fields.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from diet_ray import layout
from diet_ray.errors import DataError
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.preparation.prepare import WITHOUT_GROWTH
from diet_ray.log.schema import HashedConfig, LogSchema, parse_schema
from diet_ray.log.vocabulary import Encoder, HashedEncoder, Vocabulary, text_of
from diet_ray.storage import Folder


def write_encoding(folder: Folder, log: PreparedLog, table_rows: Sequence[int]) -> None:
    """Write what encodes raw rows for tables of these sizes.

    Ids that came after a table stopped growing are left out: to the model they are unknown.
    """
    schema = parse_schema(log.plain_schema, f"of {log.folder.root}")
    plain = yaml.safe_dump(schema.plain(), sort_keys=False, allow_unicode=True)
    folder.write(layout.MODEL_SCHEMA, plain.encode())
    for path in map(layout.side_table, range(len(schema.join))):
        if log.folder.exists(path):
            folder.write(path, log.folder.read(path))
    if not isinstance(schema.encoder, HashedConfig):
        for field, rows in zip(schema.field_names, table_rows, strict=True):
            known = _vocabulary(log, field)
            folder.write_parquet(layout.model_vocabulary(field), known.filter(pc.less(known["row"], rows)))


def _vocabulary(log: PreparedLog, field: str) -> pa.Table:
    """All ids of a field (columns id, row)."""
    learned = [block for block in log.blocks if block not in WITHOUT_GROWTH]
    increments = [log.folder.read_parquet(layout.vocabulary(block, field)) for block in learned]
    # Version 0.1.0 stored whole numbers as int64.
    return pa.concat_tables(pa.table({"id": text_of(x["id"]), "row": x["row"]}) for x in increments)


class FieldEncoder:
    """Ids to rows of a model's tables; an unknown or missing id is row 0."""

    def __init__(self, folder: Folder, table_rows: Sequence[int]) -> None:
        """folder: of an exported model. DataError where its vocabulary does not fit tables of these sizes."""
        plain = yaml.safe_load(folder.read(layout.MODEL_SCHEMA))
        schema = parse_schema(plain, folder / layout.MODEL_SCHEMA)
        self.encoders = [
            _encoder(folder, schema, field, rows)
            for field, rows in zip(schema.field_names, table_rows, strict=True)
        ]

    def encode(self, texts: pa.Table) -> NDArray[np.int32]:
        """Rows of the tables; [N, F]."""
        pairs = zip(self.encoders, texts.columns, strict=True)
        return np.stack([encoder.encode(column) for encoder, column in pairs], 1)


def _encoder(folder: Folder, schema: LogSchema, field: str, rows: int) -> Encoder:
    encoder: Encoder
    if isinstance(schema.encoder, HashedConfig):
        encoder = HashedEncoder(schema.encoder.buckets)
    else:
        encoder = vocabulary = Vocabulary()
        vocabulary.extend(folder.read_parquet(layout.model_vocabulary(field)))
    if encoder.rows != rows:
        raise DataError(
            f"{folder.root}: the encoding of {field} has {encoder.rows} rows, its table has {rows}"
        )
    return encoder

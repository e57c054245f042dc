"""A prepared log: encoded blocks on disk and the manifest that names them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.errors import DataError
from diet_ray.log.batches import EncodedRows
from diet_ray.storage import FileStamp, Folder

FORMAT = 1
MANIFEST = "prepared.json"
READ_ROWS = 65_536
AFTER_HISTORY = ("subsequent", "validation", "test")


class Part(NamedTuple):
    """One file of a block; `first` is the number of its first row within the block."""

    stamp: FileStamp
    rows: int
    first: int


class Block(NamedTuple):
    """One interval of the log, encoded."""

    name: str
    rows: int
    min_ts: int  # ms since 1970 UTC
    max_ts: int
    table_rows: tuple[int, ...]  # of each field's table once this block is known
    label_groups: dict[int, int]  # label group -> rows
    parts: tuple[Part, ...]


class EncodedLog(ABC):
    """Encoded blocks on disk: what a prepared log and a stream have in common."""

    def __init__(
        self, folder: Folder, name: str, fields: tuple[str, ...], tasks: tuple[str, ...], fingerprint: str
    ) -> None:
        self.folder, self.name, self.fingerprint = folder, name, fingerprint
        self.fields, self.tasks = fields, tasks

    @abstractmethod
    def block(self, stage: int) -> Block:
        """The block of a stage, counted from 1."""

    def chunks(self, block: Block, start: int = 0, stop: int | None = None) -> Iterator[EncodedRows]:
        """Stream rows [start, stop) of a block in order; DataError names a file that is damaged."""
        stop = block.rows if stop is None else stop
        for part in block.parts:
            if part.first < stop and part.first + part.rows > start:
                first = part.first
                for rows in self._part(part):
                    begin, end = max(start - first, 0), min(stop - first, rows.rows)
                    if begin < end:
                        yield rows.take(slice(begin, end))
                    first += rows.rows

    def rows(self, block: Block, wanted: np.ndarray) -> EncodedRows:
        """The rows with the (ascending) numbers `wanted` within the block."""
        chosen, first = [], 0
        for chunk in self.chunks(block):
            low, high = np.searchsorted(wanted, [first, first + chunk.rows])
            chosen.append(chunk.take(wanted[low:high] - first))
            first += chunk.rows
        return EncodedRows(*(np.concatenate(arrays) for arrays in zip(*chosen, strict=True)))

    def _part(self, part: Part) -> Iterator[EncodedRows]:
        path = self.folder / part.stamp.path
        try:
            with self.folder.fs.open(path, "rb") as file:
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
                if parquet.metadata.num_rows != part.rows:
                    raise DataError(
                        f"{path} has {parquet.metadata.num_rows} rows, its record says {part.rows}"
                    )
                for batch in parquet.iter_batches(READ_ROWS):
                    yield self._encoded(batch)
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as broken:
            raise DataError(f"{path} is damaged or missing: {broken}") from broken

    def _encoded(self, batch: pa.RecordBatch) -> EncodedRows:
        id_NF = np.stack([batch[name].to_numpy() for name in self.fields], 1)
        return EncodedRows(id_NF, np.stack([batch[name].to_numpy() for name in self.tasks], 1))


class PreparedLog(EncodedLog):
    """What `prepare` wrote at a folder."""

    def __init__(self, folder: Folder, manifest: dict[str, Any], fingerprint: str) -> None:
        names = (manifest["name"], tuple(manifest["fields"]), tuple(manifest["tasks"]))
        super().__init__(folder, *names, fingerprint)
        self.blocks = {block["name"]: parse_block(block) for block in manifest["blocks"]}
        self.left_out = {
            "outside of every block": manifest["outside"],
            "quarantined": manifest["quarantined"],
        }
        self.plain_schema: dict[str, Any] | None = manifest.get("schema")  # LogSchema.plain
        # Logs of version 0.1 have none of these.
        self.notes: dict[str, int] = manifest.get("notes", {})  # what was read with a doubt -> how often
        self.quarantined_by_reason: dict[str, int] = manifest.get("quarantined_by_reason", {})
        self.missing: dict[str, list[int]] = manifest.get("missing", {})  # block -> rows without id, by field

    @classmethod
    def open(cls, url: str) -> "PreparedLog":
        """DataError where the manifest is absent or unsupported, or time runs backwards in it."""
        folder = Folder.at(url)
        if not folder.exists(MANIFEST):
            raise DataError(
                f"{url} is not a prepared log: it has no {MANIFEST}; run `diet-ray prepare` first"
            )
        content, manifest = folder.read(MANIFEST), folder.read_json(MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(unsupported(folder / MANIFEST, FORMAT))
        log = cls(folder, manifest, hashlib.sha256(content).hexdigest())
        check_time_order(list(log.blocks.values()))
        return log

    @property
    def history(self) -> list[Block]:
        return [block for name, block in self.blocks.items() if name not in AFTER_HISTORY]

    def block(self, stage: int) -> Block:
        return self.history[stage - 1]


def label_rates(block: Block, tasks: tuple[str, ...]) -> dict[str, float]:
    """Share of the rows of a block in which each task is 1."""
    return {
        task: sum(rows for group, rows in block.label_groups.items() if group >> number & 1) / block.rows
        for number, task in enumerate(tasks)
    }


def unsupported(path: str, version: int) -> str:
    return f"{path} has an unsupported format version; this version of diet_ray reads {version}"


def check_time_order(blocks: list[Block]) -> None:
    for earlier, later in pairwise(blocks):
        if later.min_ts < earlier.max_ts:
            raise DataError(
                f"time runs backwards: block {later.name} starts before block {earlier.name} ends"
            )


def plain_block(block: Block) -> dict[str, Any]:
    """A block as JSON holds it."""
    parts = [{**part._asdict(), "stamp": part.stamp._asdict()} for part in block.parts]
    return {**block._asdict(), "parts": parts}


def parse_block(plain: dict[str, Any]) -> Block:
    """A block as `plain_block` wrote it."""
    parts = tuple(Part(FileStamp(**p["stamp"]), p["rows"], p["first"]) for p in plain["parts"])
    groups = {int(group): rows for group, rows in plain["label_groups"].items()}
    return Block(
        **{**plain, "table_rows": tuple(plain["table_rows"]), "label_groups": groups, "parts": parts}
    )

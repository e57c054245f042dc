"""Commit records: the files and metrics of a stage, chained by checksum."""

import hashlib
import json
from typing import Any, NamedTuple

from pydantic import ValidationError

from diet_ray import layout
from diet_ray.errors import RunError
from diet_ray.runs.metrics import StageMetrics
from diet_ray.storage import FileStamp, Folder

FORMAT = 2
READ_FORMATS = (1, 2)


class StageRecord(NamedTuple):
    """What a stage left behind; written last, so every file that it names exists."""

    stage: int
    block: str
    previous: str  # sha256 of the record before, "" for stage 1
    config: str  # sha256 of config.yaml
    files: tuple[FileStamp, ...]
    metrics: StageMetrics

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        stamps = [stamp._asdict() for stamp in self.files]
        return {"format": FORMAT, **self._asdict(), "files": stamps, "metrics": self.metrics.plain()}

    def content(self) -> bytes:
        """The record as its file holds it."""
        return (json.dumps(self.plain(), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes, path: str) -> "StageRecord":
        """Read a record of any format that was ever written; RunError where it is malformed."""
        try:
            record = json.loads(content)
            version = record.pop("format")
            if version not in READ_FORMATS:
                raise RunError(f"{path} has format version {version}; supported: {READ_FORMATS}")
            stamps = tuple(FileStamp(**stamp) for stamp in record.pop("files"))
            metrics = StageMetrics.parse(record.pop("metrics"), version)
            return cls(**record, files=stamps, metrics=metrics)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as broken:
            raise RunError(f"{path} is not a commit record: {broken}") from broken

    def memory_stamp(self) -> FileStamp:
        """The memory among the files; RunError where there is none."""
        return self._stamp("memory")

    def checkpoint_stamp(self) -> FileStamp:
        """The manifest of the reference's checkpoint among the files; RunError where there is none."""
        return self._stamp("reference")

    def checkpoint_stamps(self) -> tuple[FileStamp, ...]:
        """All files of the reference's checkpoint that were written in this stage."""
        return tuple(stamp for stamp in self.files if stamp.path.startswith("reference/"))

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes that the reference's checkpoint took in this stage."""
        return sum(stamp.size for stamp in self.checkpoint_stamps())

    def _stamp(self, part: str) -> FileStamp:
        for stamp in self.files:
            if stamp.path.startswith(f"{part}/"):
                return stamp
        raise RunError(f"stage {self.stage} has no file in {part}/")


class RecordChain:
    """The records of a run, each of which names the checksum of the one before it."""

    def __init__(self, records: list[StageRecord], newest_sha256: str) -> None:
        self.records, self.newest_sha256 = records, newest_sha256

    @classmethod
    def read(cls, folder: Folder, config_sha256: str) -> "RecordChain":
        """Read the records of a run; RunError names one that is malformed or breaks the chain."""
        chain = cls([], "")
        while folder.exists(path := layout.record(len(chain.records) + 1)):
            content = folder.read(path)
            record = StageRecord.parse(content, path)
            expected = (len(chain.records) + 1, chain.newest_sha256, config_sha256)
            if (record.stage, record.previous, record.config) != expected:
                raise RunError(f"{folder / path} does not follow the record and config before it")
            chain.append(record, content)
        return chain

    def append(self, record: StageRecord, content: bytes) -> None:
        """Add a record whose file holds `content`."""
        self.records.append(record)
        self.newest_sha256 = sha256(content)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""A run directory: a chain of stages, each of which exists when its commit record exists."""

import hashlib
import io
import json
import re
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from diet_ray.errors import DataError, RunError
from diet_ray.log.stream.log import StreamConfig
from diet_ray.storage import FileStamp, Folder

FORMAT = 1
LATEST = "memory/latest.json"
READ_ATTEMPTS = 3
# Folders that hold one numbered folder per stage; all but the first two belong to a stream.
SWEPT = ("reference", "memory", "blocks")  # of old stages of a stream
PARTS = ("reference", "memory", "blocks", "vocabulary", "events", "quarantine")


class StageRecord(NamedTuple):
    """What a stage left behind; written last, so all that it names is there."""

    stage: int
    block: str
    previous: str  # sha256 of the record before, "" for stage 1
    config: str  # sha256 of config.yaml
    files: tuple[FileStamp, ...]
    metrics: dict[str, Any]

    def content(self) -> bytes:
        stamps = [stamp._asdict() for stamp in self.files]
        record = {"format": FORMAT, **self._asdict(), "files": stamps}
        return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes, path: str) -> "StageRecord":
        try:
            record = json.loads(content)
            if record.pop("format") != FORMAT:
                raise RunError(f"{path} is of another format; this version reads format {FORMAT}")
            stamps = tuple(FileStamp(**stamp) for stamp in record.pop("files"))
            return cls(**record, files=stamps)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as broken:
            raise RunError(f"{path} is not a commit record: {broken}") from broken


class Run:
    """The run at a folder; `open` creates it, or refuses one that belongs to another config."""

    def __init__(self, folder: Folder, content: bytes) -> None:
        self.folder, self.config = folder, _parsed(folder, content)
        self.config_hash = _sha256(content)
        self.records = _read_records(folder, self.config_hash)

    @classmethod
    def read(cls, url: str) -> "Run":
        """Look at a run, also while another process writes it; nothing is changed.

        Raises RunError where there is none, or a record is malformed or does not follow the one before it.
        """
        folder = Folder.at(url)
        if not folder.exists("config.yaml"):
            raise RunError(f"{url} is not a run: it has no config.yaml; run `diet-ray distill` first")
        return cls(folder, folder.read("config.yaml"))

    @classmethod
    def open(cls, url: str, config: dict[str, Any]) -> "Run":
        """Start or continue a run; files of an unfinished stage are removed.

        Raises RunError where the run was made with another config (naming the keys), where a record is
        malformed or does not follow the one before it, or a file that the next stage needs is damaged.
        """
        folder = Folder.at(url)
        if not folder.exists("config.yaml"):
            folder.write("config.yaml", yaml.safe_dump(config, sort_keys=True).encode())
        run = cls.read(url)
        run._check_same_config(config)
        run._check_files()
        run._sweep()
        run._point_to_latest()
        return run

    @property
    def stage(self) -> int:
        """The last committed stage; 0 where there is none."""
        return len(self.records)

    def commit(self, block: str, files: tuple[FileStamp, ...], metrics: dict[str, Any]) -> StageRecord:
        """Make the next stage exist. Every file in `files` must have been written.

        Raises RunError where another writer has made it.
        """
        previous = _sha256(self.records[-1].content()) if self.records else ""
        record = StageRecord(self.stage + 1, block, previous, self.config_hash, files, metrics)
        try:
            self.folder.create(_record_path(record.stage), record.content())
        except FileExistsError as other:
            raise RunError(
                f"stage {record.stage} of {self.folder.root} was committed by another process"
            ) from other
        self.records.append(record)
        self._point_to_latest()
        return record

    def _point_to_latest(self) -> None:
        """Tell consumers where the newest memory is; after the record, so what it names is committed."""
        if self.records:
            stamp = memory_stamp(self.records[-1])
            latest = {"stage": self.stage, **stamp._asdict()}
            if not self.folder.exists(LATEST) or self.folder.read_json(LATEST) != latest:
                self.folder.write_json(LATEST, latest)

    def _check_same_config(self, config: dict[str, Any]) -> None:
        # Through YAML and back, so that tuples and lists compare equal.
        found, wanted = self.config, yaml.safe_load(yaml.safe_dump(config))
        if told := differences(found, wanted):
            root = self.folder.root
            raise RunError(f"{root} is a run of another config: {told}. Choose another run directory")

    def _check_files(self) -> None:
        """What the next stage starts from: the newest stage, and the vocabulary of all of them."""
        for record in self.records:
            for stamp in record.files:
                if stamp.path.startswith("vocabulary/"):
                    _check(self, record.stage, stamp)
        if self.stage:
            verify(self, self.stage)

    def _sweep(self) -> None:
        for part in PARTS:
            if not self.folder.exists(part):
                continue
            for path in self.folder.fs.ls(self.folder / part, detail=False):
                name = path.rsplit("/", 1)[-1]
                if re.fullmatch(r"\d{4,}", name) and int(name) > self.stage:
                    self.folder.fs.rm(path, recursive=True)


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The keys in which settings there and here differ, with both values; empty where they are the same."""
    different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    return "; ".join(f"{k} is {found.get(k)!r} there, {wanted.get(k)!r} here" for k in different)


def memory_stamp(record: StageRecord) -> FileStamp:
    """The memory among the files of a stage; RunError where there is none."""
    for stamp in record.files:
        if stamp.path.startswith("memory/"):
            return stamp
    raise RunError(f"stage {record.stage} has no memory")


def load_memory(run: str, stage: int | None = None) -> pa.Table:
    """The newest memory of a run, or that of a stage, checked against its checksum; no locks, at any time.

    Returns columns embedding, logits, stage, label_group, influence (memory.to_arrow). Raises RunError where
    the run has none yet, DataError where the file is damaged.
    """
    for attempt in range(READ_ATTEMPTS):
        folder, stamp = _memory_of(run, stage)
        try:
            content = stamp.verified(folder)
        except DataError:
            # A newer stage may have swept it between the two looks.
            if attempt == READ_ATTEMPTS - 1:
                raise
        else:
            break
    try:
        return pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as broken:
        raise DataError(f"{folder / stamp.path} is not a memory: {broken}") from broken


def _memory_of(url: str, stage: int | None) -> tuple[Folder, FileStamp]:
    if stage is not None:
        run = Run.read(url)
        if not 1 <= stage <= run.stage:
            raise RunError(f"{url} has no memory of stage {stage}; it has {run.stage} stages")
        return run.folder, memory_stamp(run.records[stage - 1])
    folder = Folder.at(url)
    if not folder.exists(LATEST):
        raise RunError(f"{url} has no memory yet: there is no {LATEST}")
    try:
        latest = folder.read_json(LATEST)
        return folder, FileStamp(latest["path"], latest["size"], latest["sha256"])
    except (KeyError, TypeError) as broken:
        raise RunError(f"{folder / LATEST} is malformed: {broken}") from broken


def _record_path(stage: int) -> str:
    return f"stages/{stage:04d}.json"


def _read_records(folder: Folder, config_hash: str) -> list[StageRecord]:
    records: list[StageRecord] = []
    previous = ""
    while folder.exists(path := _record_path(len(records) + 1)):
        content = folder.read(path)
        record = StageRecord.parse(content, path)
        expected = (len(records) + 1, previous, config_hash)
        if (record.stage, record.previous, record.config) != expected:
            raise RunError(f"{folder / path} does not follow the record and config before it")
        records.append(record)
        previous = _sha256(content)
    return records


def _parsed(folder: Folder, content: bytes) -> dict[str, Any]:
    try:
        found = yaml.safe_load(content)
    except yaml.YAMLError as broken:
        raise RunError(f"{folder / 'config.yaml'} is not YAML: {broken}") from broken
    if not isinstance(found, dict):
        raise RunError(f"{folder / 'config.yaml'} is not a mapping")
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def verify(run: Run, stage: int) -> None:
    """Check every file of a committed stage against its record; RunError names the first that fails.

    Folders that a stream has swept by its policy are not missed.
    """
    policy = run.config.get("stream")
    kept = not policy or StreamConfig.model_validate(policy).keeps(stage, run.stage)
    for stamp in run.records[stage - 1].files:
        part, _, rest = stamp.path.partition("/")
        sweepable = policy and (part == "events" or (part in SWEPT and not kept))
        if sweepable and not run.folder.exists(f"{part}/{rest.partition('/')[0]}"):
            continue
        _check(run, stage, stamp)


def _check(run: Run, stage: int, stamp: FileStamp) -> None:
    try:
        stamp.verified(run.folder)
    except DataError as broken:
        raise RunError(f"stage {stage} is damaged: {broken}") from broken

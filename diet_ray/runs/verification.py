"""Every file of every record of a run against its size and checksum, and the records against each other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from diet_ray import layout
from diet_ray.errors import DataError, RunError
from diet_ray.log.stream.config import StreamConfig
from diet_ray.runs.records import StageRecord, sha256
from diet_ray.runs.run import is_removed, parsed_config
from diet_ray.storage import FileStamp, Folder
from diet_ray.training.checkpoints.manifest import checkpoint_stages

READERS = 8  # threads that compute checksums


class Fault(NamedTuple):
    """A file that is not as its record says, or a record that does not follow the one before it."""

    stage: int  # 0 where it concerns the run as a whole
    path: str
    problem: str

    def __str__(self) -> str:
        where = f"stage {self.stage}: " if self.stage else ""
        return f"{where}{self.path} {self.problem}"


class Verification(NamedTuple):
    """What the check of a run came to."""

    stages: int
    files: int  # that records name
    removed: int  # of them, by the policy of a stream
    bytes: int  # of the files that are left, by their records
    faults: tuple[Fault, ...]


def verify_run(url: str, report: Callable[[int, int], None] = lambda done, files: None) -> Verification:
    """Check a whole run; it may be written meanwhile, and nothing is changed.

    Args:
        url: of the run.
        report: called after every file with how many are checked, of how many.

    Raises:
        RunError: where there is no run.
    """
    folder = Folder.at(url)
    if not folder.exists(layout.CONFIG):
        raise RunError(f"{url} is not a run: it has no {layout.CONFIG}")
    content, faults, config = folder.read(layout.CONFIG), [], {}
    try:
        config = parsed_config(folder, content)
    except RunError as broken:
        faults.append(Fault(0, layout.CONFIG, str(broken)))
    records, broken_records = _records(folder, sha256(content))
    named = [(record.stage, stamp) for record in records for stamp in record.files]
    check = _Check(folder, config, _needed_stages(folder, config, records))
    with ThreadPoolExecutor(READERS) as threads:
        checked = threads.map(lambda each: check(*each), named)
        found = []
        for done, result in enumerate(checked, start=1):
            found.append(result)
            report(done, len(named))
    removed = sum(result == _REMOVED for result in found)
    faults += [*broken_records, *(result for result in found if result and result != _REMOVED)]
    if records and (fault := _latest_fault(folder, records[-1])):
        faults.append(fault)
    size = sum(stamp.size for (_, stamp), result in zip(named, found, strict=True) if result != _REMOVED)
    return Verification(len(records), len(named), removed, size, tuple(sorted(faults)))


_REMOVED = Fault(0, "", "was removed by the policy of the stream")


def _needed_stages(folder: Folder, config: dict[str, Any], records: list[StageRecord]) -> frozenset[int]:
    """Stages whose checkpoints a stream may not remove: others that it keeps build on them."""
    if not config.get("stream"):
        return frozenset()
    keeps = StreamConfig.model_validate(config["stream"]).keeps
    needed: set[int] = set()
    for record in records:
        if keeps(record.stage, records[-1].stage):
            with suppress(RunError, DataError):  # a manifest that is damaged is a fault of its own
                needed |= checkpoint_stages(folder, record.stage)
    return frozenset(needed)


class _Check(NamedTuple):
    folder: Folder
    config: dict[str, Any]
    needed: frozenset[int]  # stages whose checkpoint must be there

    def __call__(self, stage: int, stamp: FileStamp) -> Fault | None:
        try:
            found = self.folder.digest(stamp.path)
        except FileNotFoundError:
            # Asked only now: a stream that goes on removes files of stages that were the newest before.
            newest = max(stage_numbers(self.folder), default=0)
            is_needed = stage in self.needed and stamp.path.startswith("reference/")
            if not is_needed and is_removed(self.folder, self.config, stage, newest, stamp.path):
                return _REMOVED
            return Fault(stage, stamp.path, "is missing")
        except DataError as outside:
            return Fault(stage, stamp.path, str(outside))
        except OSError as failed:
            return Fault(stage, stamp.path, f"cannot be read: {failed.strerror or failed}")
        if found.size != stamp.size:
            return Fault(stage, stamp.path, f"has {found.size:,} bytes, its record says {stamp.size:,}")
        if found.sha256 != stamp.sha256:
            return Fault(stage, stamp.path, "does not match the checksum in its record")
        return None


def stage_numbers(folder: Folder) -> list[int]:
    """The stages of which there is a commit record, in order."""
    if not folder.exists(layout.RECORDS):
        return []
    folder.fs.invalidate_cache(folder / layout.RECORDS)
    names = [path.rsplit("/", 1)[-1] for path in folder.fs.ls(folder / layout.RECORDS, detail=False)]
    numbers = [layout.stage_number(name.removesuffix(".json")) for name in names if name.endswith(".json")]
    return sorted(number for number in numbers if number)


def _records(folder: Folder, config_sha256: str) -> tuple[list[StageRecord], list[Fault]]:
    """The records that can be read, and what is wrong with the others and with their chain."""
    records, faults, before = [], [], ""
    numbers = stage_numbers(folder)
    for stage in range(1, max(numbers, default=0) + 1):
        path = layout.record(stage)
        if stage not in numbers:
            faults.append(Fault(stage, path, "is missing, and there are stages after it"))
            before = ""
            continue
        content = folder.read(path)
        try:
            record = StageRecord.parse(content, path)
        except RunError as malformed:
            faults.append(Fault(stage, path, f"is malformed: {malformed}"))
        else:
            records.append(record)
            is_linked = record.previous == before or (not before and stage > 1)
            if record.stage != stage or record.config != config_sha256 or not is_linked:
                faults.append(Fault(stage, path, "does not follow the record and config before it"))
        before = sha256(content)
    return records, faults


def _latest_fault(folder: Folder, newest: StageRecord) -> Fault | None:
    """None where consumers are shown the newest memory, or one that was committed meanwhile."""
    path = layout.LATEST_MEMORY
    try:
        latest = folder.read_json(path)
        committed = {"stage": newest.stage, **newest.memory_stamp()._asdict()}
        if latest == committed or latest["stage"] > newest.stage:
            return None
    except RunError:
        return None  # a record without a memory; its own fault
    except (DataError, KeyError, TypeError) as broken:
        return Fault(0, path, f"names no memory ({broken}); the next start of the run repairs it")
    return Fault(0, path, "does not name the newest memory; the next start of the run repairs it")

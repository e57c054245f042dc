"""A run directory: a chain of stages, each of which exists when its commit record exists."""

from typing import Any

import yaml

from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.errors import DataError, RunError
from diet_ray.log.stream.config import StreamConfig
from diet_ray.runs.metrics import StageMetrics
from diet_ray.runs.records import RecordChain, StageRecord, sha256
from diet_ray.storage import FileStamp, Folder
from diet_ray.stored_config import OF_LOG, upgrade_config
from diet_ray.strict import differences
from diet_ray.training.checkpoints.manifest import built_on


class Run:
    """The run at a folder.

    Attributes:
        folder: the run directory.
        config: its config.yaml, keys of older versions renamed to today's.
        config_sha256: checksum of config.yaml as it is stored.
    """

    def __init__(self, folder: Folder, content: bytes) -> None:
        self.folder, self.config = folder, upgrade_config(parsed_config(folder, content))
        self.config_sha256 = sha256(content)
        self._chain = RecordChain.read(folder, self.config_sha256)

    @classmethod
    def read(cls, url: str) -> "Run":
        """Open a run for reading, also while another process writes it; nothing is changed.

        Raises:
            RunError: where there is no run, or a record is malformed or breaks the chain.
        """
        folder = Folder.at(url)
        if not folder.exists(layout.CONFIG):
            raise RunError(f"{url} is not a run: it has no {layout.CONFIG}; run `diet-ray distill` first")
        return cls(folder, folder.read(layout.CONFIG))

    @classmethod
    def open(cls, url: str, config: dict[str, Any]) -> "Run":
        """Create or resume a run; files of an unfinished stage are removed.

        Raises:
            RunError: where the run was created with a different config (the message names the keys), a
                record is malformed or breaks the chain, or a file that the next stage needs is damaged.
        """
        folder = Folder.at(url)
        if not folder.exists(layout.CONFIG):
            folder.write(layout.CONFIG, yaml.safe_dump(config, sort_keys=True).encode())
        run = cls.read(url)
        run._check_same_config(config)
        if run.stage:
            run.check_start(run.stage)
        run.sweep()
        run.publish_latest()
        return run

    @property
    def records(self) -> list[StageRecord]:
        """The committed stages, in order."""
        return self._chain.records

    @property
    def stage(self) -> int:
        """The last committed stage; 0 where there is none."""
        return len(self.records)

    @property
    def run_config(self) -> RunConfig:
        """The method's part of the config."""
        return RunConfig.model_validate({k: v for k, v in self.config.items() if k not in OF_LOG})

    def commit(self, block: str, files: tuple[FileStamp, ...], metrics: StageMetrics) -> StageRecord:
        """Make the next stage exist. Every file in `files` must have been written.

        Raises:
            RunError: where another process has committed the stage.
        """
        record = StageRecord(
            stage=self.stage + 1,
            block=block,
            previous=self._chain.newest_sha256,
            config=self.config_sha256,
            files=files,
            metrics=metrics,
        )
        content = record.content()
        try:
            self.folder.create(layout.record(record.stage), content)
        except FileExistsError as other:
            raise RunError(
                f"stage {record.stage} of {self.folder.root} was committed by another process"
            ) from other
        self._chain.append(record, content)
        self.publish_latest()
        return record

    def verify(self, stage: int) -> None:
        """Check every file of a committed stage against its record; RunError names the first that differs.

        Files of earlier stages that its checkpoint builds on are checked, too. Folders that a stream has
        removed by its policy are not missed.
        """
        for stamp in self.records[stage - 1].files:
            if not is_removed(self.folder, self.config, stage, self.stage, stamp.path):
                self._check(stage, stamp)
        for stamp in built_on(self.folder, stage):
            self._check(stage, stamp)

    def check_start(self, stage: int) -> None:
        """Check what the stage after `stage` starts from; RunError names a file that is gone or damaged.

        That is all of `stage`, what its checkpoint builds on, the vocabulary of all stages, and the event ids
        that a row in time can repeat.
        """
        for record in self.records[:stage]:
            for stamp in record.files:
                if self._is_start(record, stamp.path, stage):
                    self._check(record.stage, stamp)
        for stamp in built_on(self.folder, stage) if stage else ():
            self._check(stage, stamp)

    def _is_start(self, record: StageRecord, path: str, stage: int) -> bool:
        part, newest = path.partition("/")[0], self.records[stage - 1].metrics.stream
        if part == "events" and newest and record.metrics.stream:
            lateness = StreamConfig.model_validate(self.config["stream"]).lateness
            return record.metrics.stream.watermark >= newest.watermark - lateness * 1000
        return part == "vocabulary" or record.stage == stage

    def publish_latest(self, stage: int | None = None) -> None:
        """Name the memory of a stage, the newest by default, for consumers.

        Called after the record is written, so that what is named is committed.
        """
        if self.records:
            record = self.records[-1 if stage is None else stage - 1]
            latest = {"stage": record.stage, **record.memory_stamp()._asdict()}
            path = layout.LATEST_MEMORY
            if not self.folder.exists(path) or self.folder.read_json(path) != latest:
                self.folder.write_json(path, latest)

    def _check_same_config(self, config: dict[str, Any]) -> None:
        # Through YAML and back, so that tuples and lists compare equal.
        if changed := differences(self.config, yaml.safe_load(yaml.safe_dump(config))):
            raise RunError(
                f"{self.folder.root} was created with a different config ({changed}); choose another run "
                "directory or the run's own settings"
            )

    def _check(self, stage: int, stamp: FileStamp) -> None:
        try:
            stamp.verified(self.folder)
        except DataError as broken:
            raise RunError(f"stage {stage} is damaged: {broken}") from broken

    def sweep(self, *, keep_trained: bool = True) -> None:
        """Remove the files of stages that are not committed.

        keep_trained: leave checkpoints whose training has finished, which the next start uses.
        """
        for part in layout.STAGE_FOLDERS:
            if not self.folder.exists(part):
                continue
            for path in self.folder.fs.ls(self.folder / part, detail=False):
                stage = layout.stage_number(path.rsplit("/", 1)[-1])
                if stage is None or stage <= self.stage:
                    continue
                if not (keep_trained and part == "reference" and self.folder.exists(layout.trained(stage))):
                    self.folder.fs.rm(path, recursive=True)


def is_removed(folder: Folder, config: dict[str, Any], stage: int, newest: int, path: str) -> bool:
    """Whether a stream has removed a file of a stage, with its folder, by its policy.

    Args:
        folder: the run directory.
        config: of the run.
        stage: number of the stage.
        newest: the last committed stage.
        path: of the file, relative to the run directory.
    """
    policy, (part, number, *_) = config.get("stream"), path.split("/")
    if not policy:
        return False
    kept = StreamConfig.model_validate(policy).keeps(stage, newest)
    may_be_gone = part == "events" or (part in layout.SWEPT_FOLDERS and not kept)
    return may_be_gone and not folder.exists(f"{part}/{number}")


def parsed_config(folder: Folder, content: bytes) -> dict[str, Any]:
    """A run's config.yaml; RunError where it is malformed."""
    path = folder / layout.CONFIG
    try:
        config = yaml.safe_load(content)
    except yaml.YAMLError as broken:
        raise RunError(f"{path} is not YAML: {broken}") from broken
    if not isinstance(config, dict):
        raise RunError(f"{path} is not a mapping")
    return config

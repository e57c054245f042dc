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
from diet_ray.training.checkpoints.manifest import Manifest


class Run:
    """The run at a folder.

    Attributes:
        folder: the run directory.
        config: its config.yaml, keys of older versions renamed to today's.
        config_sha256: checksum of config.yaml as it is stored.
    """

    def __init__(self, folder: Folder, content: bytes) -> None:
        self.folder, self.config = folder, upgrade_config(_parsed_config(folder, content))
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
        run._check_files()
        run._sweep()
        run._publish_latest()
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
        self._publish_latest()
        return record

    def verify(self, stage: int) -> None:
        """Check every file of a committed stage against its record; RunError names the first that differs.

        Files of earlier stages that its checkpoint builds on are checked, too. Folders that a stream has
        removed by its policy are not missed.
        """
        policy = self.config.get("stream")
        kept = not policy or StreamConfig.model_validate(policy).keeps(stage, self.stage)
        for stamp in self.records[stage - 1].files:
            part, _, rest = stamp.path.partition("/")
            may_be_gone = policy and (part == "events" or (part in layout.SWEPT_FOLDERS and not kept))
            if may_be_gone and not self.folder.exists(f"{part}/{rest.partition('/')[0]}"):
                continue
            self._check(stage, stamp)
        own = layout.stage_folder("reference", stage)
        manifest = Manifest.read(self.folder, stage)
        for stamp in manifest.files if manifest else ():
            if not stamp.path.startswith(f"{own}/"):
                self._check(stage, stamp)

    def _publish_latest(self) -> None:
        """Name the newest memory for consumers; after the record, so what is named is committed."""
        if self.records:
            latest = {"stage": self.stage, **self.records[-1].memory_stamp()._asdict()}
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

    def _check_files(self) -> None:
        """Check what the next stage starts from: the newest stage, and the vocabulary of all stages."""
        for record in self.records:
            for stamp in record.files:
                if stamp.path.startswith("vocabulary/"):
                    self._check(record.stage, stamp)
        if self.stage:
            self.verify(self.stage)

    def _check(self, stage: int, stamp: FileStamp) -> None:
        try:
            stamp.verified(self.folder)
        except DataError as broken:
            raise RunError(f"stage {stage} is damaged: {broken}") from broken

    def _sweep(self) -> None:
        for part in layout.STAGE_FOLDERS:
            if not self.folder.exists(part):
                continue
            for path in self.folder.fs.ls(self.folder / part, detail=False):
                stage = layout.stage_number(path.rsplit("/", 1)[-1])
                if stage is not None and stage > self.stage:
                    self.folder.fs.rm(path, recursive=True)


def differences(stored: dict[str, Any], requested: dict[str, Any], prefix: str = "") -> str:
    """The keys in which two settings differ, with both values; empty where they are the same."""
    changed = []
    for key in sorted(stored.keys() | requested.keys()):
        old, new = stored.get(key), requested.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed.append(differences(old, new, f"{prefix}{key}."))
        else:
            changed.append(f"{prefix}{key}: the run has {old!r}, this command asks for {new!r}")
    return "; ".join(changed)


def _parsed_config(folder: Folder, content: bytes) -> dict[str, Any]:
    path = folder / layout.CONFIG
    try:
        config = yaml.safe_load(content)
    except yaml.YAMLError as broken:
        raise RunError(f"{path} is not YAML: {broken}") from broken
    if not isinstance(config, dict):
        raise RunError(f"{path} is not a mapping")
    return config

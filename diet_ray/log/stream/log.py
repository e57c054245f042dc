"""A log that grows: where its micro-blocks lie."""

import hashlib

from diet_ray import layout
from diet_ray.errors import DataError
from diet_ray.log.dataset import Block, EncodedLog, parse_block, unsupported
from diet_ray.log.schema import LogSchema, parse_schema
from diet_ray.storage import Folder
from diet_ray.strict import differences

FORMAT = 1


class StreamLog(EncodedLog):
    """The blocks of a stream, which lie in its run directory."""

    @classmethod
    def create(cls, folder: Folder, schema: LogSchema) -> "StreamLog":
        """Start a stream or open it again; DataError where it was created with a different schema."""
        names = {"name": schema.name, "fields": schema.field_names, "tasks": schema.task_names}
        manifest = {"format": FORMAT, **names, "schema": schema.plain()}
        if not folder.exists(layout.STREAM_MANIFEST):
            folder.write_json(layout.STREAM_MANIFEST, manifest)
        log = cls.open(folder)
        # malformed may change: a row that stops the stream can be quarantined after a restart.
        requested = {**schema.plain(), "malformed": log.schema.malformed}
        if changed := differences(log.schema.plain(), requested):
            raise DataError(
                f"the stream at {folder.root} was created with a different schema ({changed}); choose a new "
                "run directory"
            )
        return log

    @classmethod
    def open(cls, folder: Folder) -> "StreamLog":
        manifest = folder.read_json(layout.STREAM_MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(unsupported(folder / layout.STREAM_MANIFEST, FORMAT))
        fingerprint = hashlib.sha256(folder.read(layout.STREAM_MANIFEST)).hexdigest()
        names = (manifest["name"], tuple(manifest["fields"]), tuple(manifest["tasks"]))
        log = cls(folder, *names, fingerprint)
        log.schema = parse_schema(manifest["schema"], "of the stream")
        return log

    schema: LogSchema

    def block(self, stage: int) -> Block:
        return parse_block(self.folder.read_json(layout.stream_block(stage)))

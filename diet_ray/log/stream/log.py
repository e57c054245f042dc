"""A log that grows: when its micro-blocks close, and where they lie."""

import hashlib
from typing import Annotated

from pydantic import Field

from diet_ray import layout
from diet_ray.errors import DataError
from diet_ray.log.dataset import Block, EncodedLog, parse_block, unsupported
from diet_ray.log.schema import LogSchema, parse_schema
from diet_ray.storage import Folder
from diet_ray.strict import Strict, differences

MANIFEST = "stream.json"
FORMAT = 1


class StreamConfig(Strict):
    """When a micro-block closes, which rows it accepts, and how much of the past is kept."""

    block_rows: Annotated[int, Field(ge=2)] = 30_000
    """Rows at which a micro-block closes."""
    block_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which a micro-block closes with fewer rows."""
    min_rows: Annotated[int, Field(ge=2)] = 1_000
    """Fewest rows of a micro-block, however it closes."""
    lateness: Annotated[float, Field(ge=0)] = 3600.0
    """Seconds that a row may lie behind the newest committed row; later ones are quarantined."""
    ahead: Annotated[float, Field(ge=0)] = 86_400.0
    """Seconds that a row may lie ahead of the clock; others are quarantined."""
    max_memory_rows: Annotated[int, Field(ge=2)] = 50_000
    """Most rows of the memory."""
    new_factor: Annotated[float, Field(gt=0)] = 2.0
    """New memory rows of a block, per row that `ratio` would take of it."""
    keep_last: Annotated[int, Field(ge=2)] = 3
    """Newest stages whose files are kept."""
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Keep the files of every n-th stage for good; 0: of none."""
    probe_every: Annotated[int, Field(ge=0)] = 10
    """Stages from one probe of the memory to the next; 0: no probes."""
    max_fall: Annotated[float, Field(gt=0)] = 0.1
    """Fall of progressive AUC below the mean of recent blocks at which the stream stops before it commits."""

    def keeps(self, stage: int, newest: int) -> bool:
        """Whether the files of `stage` are still wanted when `newest` is committed."""
        return stage > newest - self.keep_last or bool(self.keep_every and stage % self.keep_every == 0)


class StreamLog(EncodedLog):
    """The blocks of a stream, which lie in its run directory."""

    @classmethod
    def create(cls, folder: Folder, schema: LogSchema) -> "StreamLog":
        """Start a stream or open it again; DataError where it was created with a different schema."""
        names = {"name": schema.name, "fields": schema.field_names, "tasks": schema.task_names}
        manifest = {"format": FORMAT, **names, "schema": schema.plain()}
        if not folder.exists(MANIFEST):
            folder.write_json(MANIFEST, manifest)
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
        manifest = folder.read_json(MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(unsupported(folder / MANIFEST, FORMAT))
        fingerprint = hashlib.sha256(folder.read(MANIFEST)).hexdigest()
        names = (manifest["name"], tuple(manifest["fields"]), tuple(manifest["tasks"]))
        log = cls(folder, *names, fingerprint)
        log.schema = parse_schema(manifest["schema"], "of the stream")
        return log

    schema: LogSchema

    def block(self, stage: int) -> Block:
        return parse_block(self.folder.read_json(layout.stream_block(stage)))

"""How a log that arrives is read and cut into micro-blocks."""

from typing import Annotated, Literal

from pydantic import Field

from diet_ray.strict import Strict

Coding = Literal["json", "arrow"]


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


class KafkaConfig(Strict):
    """How messages of a topic are read."""

    format: Coding = "json"
    """json: an object, or a list of them, per message; arrow: an Arrow IPC stream per message."""
    consumer: str | None = None
    """YAML file of librdkafka settings, for security.protocol and the like."""
    look_messages: Annotated[int, Field(ge=1)] = 10_000
    """Most messages to read, and hold, per partition and poll."""
    patience: Annotated[float, Field(gt=0)] = 10.0
    """Seconds after which a read ends where the last offsets hold no message (transactions leave such)."""
    outage: Annotated[float, Field(ge=0)] = 600.0
    """Seconds to wait for a broker that does not answer."""

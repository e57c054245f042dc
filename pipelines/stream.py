"""Keep distilling as a log arrives in files or messages: a memory follows it.

The same stages as `distill`; only where the blocks come from differs. What a stage took of what, the
vocabulary, the checkpoint, the memory and the metrics are committed in one record: whatever is killed when,
no row is lost or taken twice.
"""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.markup import escape

from actors.cluster import plan
from actors.connection import connect
from actors.kafka import SCHEME, KafkaArrivals, KafkaConfig
from diet_ray.config import RunConfig
from diet_ray.errors import ConfigError
from diet_ray.log.dataset import Block
from diet_ray.log.schema import LogSchema, load_schema
from diet_ray.log.stream.arrivals import Arrivals, DirectoryArrivals
from diet_ray.log.stream.intake import Closed, Intake
from diet_ray.log.stream.log import StreamConfig, StreamLog
from diet_ray.runs.lease import Lease
from diet_ray.runs.run import SWEPT, Run
from diet_ray.storage import FileStamp, Folder, absolute, is_below
from pipelines.runtime.command import option, run_command
from pipelines.runtime.driver import Budget, Driver
from pipelines.runtime.health import Health
from pipelines.runtime.progress import bars, console
from pipelines.runtime.recipe import Recipe, load_recipe
from pipelines.runtime.stream_guard import Watch

FREE = ("block_seconds", "min_rows", "ahead", "probe_every", "max_fall")  # settings that may change in a run
ITERATIONS = 4  # outer, per micro-block, where no recipe says how many


@dataclass(frozen=True)
class Stream:
    """Distil a log as it arrives, for as long as it does; started again, it goes on.

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live --stream.block-rows 10000

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live --until-idle 60

    $ diet-ray stream --dataset clicks.yaml --source kafka://broker:9092/clicks --run runs/live

    Writers publish files into SOURCE by rename; a topic needs `pip install 'diet-ray[kafka]'`. The newest
    memory is named by RUN/memory/latest.json, which `diet_ray.load_memory(run)` reads at any time;
    `diet-ray status RUN` tells how the stream is.
    """

    dataset: str
    """YAML file of the log's schema; it needs no blocks. Its `event_id` is the column that tells doubles."""
    source: str
    """Directory that grows (Parquet or CSV files, taken in the order of their names as they appear), or
    kafka://host:port[,host:port]/topic, from the oldest message it has."""
    run: str
    """Directory of the run; new, or one to go on with."""
    config: str | None = None
    """A recipe or a YAML file; options below override it."""
    until_idle: float | None = None
    """End after so many seconds without anything new, closing a last block; run on where it is left out."""
    poll: float = 1.0
    """Seconds between two looks at the source."""
    skip_block: bool = False
    """Set the rows of the next block aside (RUN/quarantine) and go on with the one after it."""
    json_log: bool = False
    """Print a line of JSON per stage on standard output."""
    kafka: KafkaConfig = KafkaConfig()
    """How messages of a topic are read."""
    stream: StreamConfig = StreamConfig()
    """When a block closes, what it may still take, what is kept."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()

    @classmethod
    def defaults(cls) -> "Stream":
        """What holds where no option says otherwise: the recipe that --config names."""
        named = option("--config")
        recipe = load_recipe(named) if named else Recipe()
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING, settings=for_small_blocks(recipe))

    def __call__(self) -> None:
        stream(self)


def for_small_blocks(recipe: Recipe) -> Recipe:
    """The recipe with few outer iterations per stage, unless it says how many.

    They cost the same whatever the rows of a block: what a large block takes at once, small ones share.
    """
    if "iterations" in recipe.method.outer.model_fields_set:
        return recipe
    outer = recipe.method.outer.model_copy(update={"iterations": ITERATIONS})
    return recipe.model_copy(update={"method": recipe.method.model_copy(update={"outer": outer})})


def stream(asked: Stream) -> Run:
    """Distil what arrives until nothing does any more; return the run.

    Raises DataError where a file cannot be read or the reference has diverged, RunError where another process
    writes the run or it is one of another config.
    """
    url = absolute(asked.run)
    check_source(asked.source, url)
    schema, config = load_schema(asked.dataset), asked.settings.run_config()
    folder = Folder.at(url)
    with Lease(folder) as lease:
        log = StreamLog.create(folder, schema)
        of_stream = {"log": log.name, "fingerprint": log.fingerprint, "stream": pinned(asked.stream, url)}
        run = Run.open(url, {**config.model_dump(mode="json"), **of_stream})
        states = [record.metrics["stream"] for record in run.records]
        found = connect()
        intake = Intake(folder, arrivals(asked, schema), schema, asked.stream, states)
        if asked.skip_block:
            console.print(f"{intake.skip():,} rows are set aside")
        planned = plan(found, asked.settings.resources)
        console.print(f"{found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs: {planned.told()}")
        console.print(f"{'going on after' if run.stage else 'starting before'} stage {max(run.stage, 1)}")
        blocks = MicroBlocks(intake, run, config, asked, Health(run, json_log=asked.json_log))
        watch = Watch(run, asked.stream)
        driver = Driver(blocks, run, config, url, url, planned, lease, examine=watch, probe=watch.probe)
        with bars() as shown:
            driver.run_stages(shown)
        say_what_waits(intake, asked.stream)
    return run


def check_source(source: str, run: str) -> None:
    """Refuse a SOURCE that is a file or contains the run; say so where a folder is not there yet."""
    if source.startswith(SCHEME):
        return
    folder = Folder.at(absolute(source))
    folder.fs.invalidate_cache()
    if folder.fs.isfile(folder.root):
        raise ConfigError(
            f"--source {source} is a file: a stream reads a folder into which files are published, or a "
            "topic (kafka://...); name the folder, or use `diet-ray prepare` and `distill` for a single file"
        )
    if is_below(run, source):
        raise ConfigError(
            f"--run {run} lies below --source {source}: the run's own files would be read as new rows of the "
            "log; choose a run directory elsewhere"
        )
    if not folder.fs.exists(folder.root):
        console.print(f"[yellow]there is no folder {escape(source)}; waiting for it to appear")


def say_what_waits(intake: Intake, config: StreamConfig) -> None:
    """Rows that were read and are too few for a block, and the settings that close smaller blocks."""
    if intake.rows:
        console.print(
            f"{intake.rows:,} rows wait for a block: they are read again by the next `diet-ray stream` with "
            f"this run; a block closes at {config.block_rows:,} rows (--stream.block-rows), or once idle at "
            f"{min(config.min_rows, config.block_rows):,} rows (--stream.min-rows)"
        )


def pinned(config: StreamConfig, url: str) -> dict[str, Any]:
    """The settings as asked, but for those that may change in a run: as the run at `url` began with."""
    asked = config.model_dump()
    if not Folder.at(url).exists("config.yaml"):
        return asked
    made = Run.read(url).config.get("stream", {})
    return {**asked, **{key: made[key] for key in FREE if key in made}}


def arrivals(asked: Stream, schema: LogSchema) -> Arrivals:
    """ConfigError where the source is neither a directory nor a topic that can be read."""
    if asked.source.startswith(SCHEME):
        return KafkaArrivals(asked.source, schema, asked.kafka)
    return DirectoryArrivals(absolute(asked.source), schema)


class MicroBlocks:
    """A BlockSource that waits for what arrives."""

    def __init__(
        self, intake: Intake, run: Run, config: RunConfig, asked: Stream, told: Callable[[], None]
    ) -> None:
        self.intake, self.run, self.config, self.asked, self.told = intake, run, config, asked, told
        self.tasks = intake.schema.task_names
        self.closed: dict[int, tuple[Closed, dict[str, Any]]] = {}
        self.clock: dict[int, float] = {}  # when a block closed, by a clock that does not go back
        self.over = threading.Event()
        self.taken = sum(record.metrics["block_rows"] for record in run.records)

    def next(self, stage: int) -> Block | None:
        opened = last = time.monotonic()
        reading = 0.0
        while not self.over.is_set():
            now = time.monotonic()
            if self.intake.poll():
                last = time.monotonic()
            if not self.intake.rows:
                opened = now
            idle = self.asked.until_idle is not None and now - last >= self.asked.until_idle
            late = now - opened >= self.asked.stream.block_seconds
            enough = self.intake.rows >= self.asked.stream.min_rows
            found = self.intake.close(stage, whole=(idle or late) and enough)
            reading += time.monotonic() - now
            if found:
                self.closed[stage] = (found, {"closed_at": time.time(), "seconds_to_read": reading})
                self.clock[stage] = time.monotonic()
                return found.block
            if idle:
                return None
            self.over.wait(self.asked.poll)
        return None

    def budget(self, block: Block, stage: int, held: int) -> Budget:
        self.taken += block.rows
        rows = min(round(self.config.ratio * self.taken), self.asked.stream.max_memory_rows)
        usual = round(self.asked.stream.new_factor * self.config.ratio * block.rows)
        new = min(self.config.method.boundary.new_rows(rows, held), usual, block.rows)
        new = max(new, len(block.label_groups))  # each group has a row
        return Budget(new + min(held, max(0, rows - new)), new)

    def commit(self, stage: int) -> tuple[tuple[FileStamp, ...], dict[str, Any]]:
        closed, told = self.closed.pop(stage)
        told |= {"seconds_to_commit": time.monotonic() - self.clock.pop(stage), "lag": self.lag()}
        return closed.files, {"stream": closed.state, **told}

    def lag(self) -> dict[str, int | None]:
        """What has arrived and belongs to no committed block."""
        rows = self.intake.rows + sum(closed.block.rows for closed, _ in list(self.closed.values()))
        return {"rows_read": rows, "not_read": self.intake.waiting}

    def committed(self, stage: int) -> None:
        sweep(self.run, self.asked.stream)
        self.told()

    def stop(self) -> None:
        self.over.set()


def sweep(run: Run, config: StreamConfig) -> None:
    """Remove files of the stage that has just become too old, and events that no row in time can repeat."""
    folder, newest = run.folder, run.stage
    # A crash may have come between a commit and the sweep after it: also what was too old before.
    late = range(max(1, newest - config.keep_last - 1), newest)
    old = [stage for stage in late if not config.keeps(stage, newest)]
    gone = [f"{part}/{stage:04d}" for stage in old for part in SWEPT]
    bound = run.records[-1].metrics["stream"]["watermark"] - config.lateness * 1000
    for record in reversed(run.records):
        if record.metrics["stream"]["watermark"] < bound:
            path = f"events/{record.stage:04d}"
            if not folder.exists(path):
                break
            gone.append(path)
    for path in gone:
        if folder.exists(path):
            folder.fs.rm(folder / path, recursive=True)


if __name__ == "__main__":
    sys.exit(run_command(Stream, "diet-ray stream", Stream.defaults))

"""Keep distilling as a log arrives in files or messages: the memory follows the stream.

The stages are those of `distill`; only where the blocks come from differs. One record commits what a stage
took from where, the vocabulary, the checkpoint, the memory and the metrics: whatever is killed when, no row
is lost or taken twice.
"""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.markup import escape

from actors.kafka import SCHEME, KafkaArrivals, KafkaConfig
from diet_ray import layout
from diet_ray.distillation.memory_update import check_reference
from diet_ray.errors import ConfigError
from diet_ray.evaluation.evidence import of_stream
from diet_ray.evaluation.verdict import verdict
from diet_ray.log.schema import LogSchema, load_schema
from diet_ray.log.stream.arrivals import Arrivals, DirectoryArrivals
from diet_ray.log.stream.intake import Intake
from diet_ray.log.stream.intake_state import IntakeState
from diet_ray.log.stream.log import StreamConfig, StreamLog
from diet_ray.runs.history import log_identity
from diet_ray.runs.lease import Lease
from diet_ray.runs.run import Run
from diet_ray.storage import Folder, absolute, is_below
from pipelines.runtime.command import option, run_command, say_next
from pipelines.runtime.driver import Driver
from pipelines.runtime.health import Health
from pipelines.runtime.micro_blocks import MicroBlocks, Pace
from pipelines.runtime.placement import place
from pipelines.runtime.progress import bars, console
from pipelines.runtime.recipe import Recipe, load_recipe
from pipelines.runtime.stream_guard import StreamGuard

CHANGEABLE = ("block_seconds", "min_rows", "ahead", "probe_every", "max_fall")  # within a run
ITERATIONS = 4  # outer, per micro-block, where no recipe sets them


@dataclass(frozen=True)
class Stream:
    """Distill a log as it arrives, for as long as it does; rerun to resume.

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live --stream.block-rows 10000

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live --until-idle 60

    $ diet-ray stream --dataset clicks.yaml --source kafka://broker:9092/clicks --run runs/live

    Writers publish files into SOURCE by rename; a topic needs `pip install 'diet-ray[kafka]'`. The newest
    memory is named by RUN/memory/latest.json, which `diet_ray.load_memory(run)` reads at any time;
    `diet-ray status RUN` shows the state of the stream.
    """

    dataset: str
    """YAML file of the log's schema; it needs no blocks. `event_id`: column used to deduplicate events."""
    source: str
    """Directory that grows (files are taken in the order of their names as they appear), or
    kafka://host:port[,host:port]/topic, read from its oldest message."""
    run: str
    """Directory of the run; new, or one to resume."""
    config: str | None = None
    """A recipe or a YAML file; options below override it."""
    until_idle: float | None = None
    """Seconds without anything new after which the stream closes a last block and ends; never if left out."""
    poll: float = 1.0
    """Seconds between two polls of the source."""
    skip_block: bool = False
    """Quarantine the rows of the next block (RUN/quarantine) and continue with the one after it."""
    json_log: bool = False
    """Print a line of JSON per stage on standard output."""
    kafka: KafkaConfig = KafkaConfig()
    """How messages of a topic are read."""
    stream: StreamConfig = StreamConfig()
    """When a block closes, which rows it accepts, what is kept."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()

    @classmethod
    def defaults(cls) -> "Stream":
        """The defaults of the options: those of the recipe that --config names."""
        config = option("--config")
        recipe = load_recipe(config) if config else Recipe()
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING, settings=for_small_blocks(recipe))

    def __call__(self) -> None:
        run = stream(self)
        if evidence := of_stream(run.records):
            console.print(verdict(evidence).text, markup=False)
        say_next("report", self.run)


def for_small_blocks(recipe: Recipe) -> Recipe:
    """The recipe with few outer iterations per stage, unless it sets them.

    They cost the same whatever the rows of a block: what a large block takes at once, small ones share.
    """
    if "iterations" in recipe.method.outer.model_fields_set:
        return recipe
    outer = recipe.method.outer.model_copy(update={"iterations": ITERATIONS})
    return recipe.model_copy(update={"method": recipe.method.model_copy(update={"outer": outer})})


def stream(options: Stream) -> Run:
    """Distill what arrives until the source is idle; return the run.

    Raises:
        DataError: where a file cannot be read or the reference has degraded.
        RunError: where another process writes the run, or it was created with a different config.
    """
    url = absolute(options.run)
    check_source(options.source, url)
    schema, config = load_schema(options.dataset), options.settings.run_config()
    check_reference(config, fields=len(schema.fields), tasks=len(schema.tasks))
    folder = Folder.at(url)
    with Lease(folder) as lease:
        log = StreamLog.create(folder, schema)
        identity = {**log_identity(log), "stream": pinned(options.stream, url)}
        run = Run.open(url, {**config.model_dump(mode="json"), **identity})
        placed = place(options.settings.resources)
        intake = Intake(folder, arrivals(options, schema), schema, options.stream, intake_states(run))
        if options.skip_block:
            console.print(f"{intake.skip():,} rows of the next block are quarantined")
        console.print(f"resuming after stage {run.stage}" if run.stage else "starting with stage 1")
        health = Health(run, json_log=options.json_log)
        pace = Pace(options.poll, options.until_idle)
        driver = Driver(
            MicroBlocks(intake, run, config, options.stream, pace, health),
            run,
            data=url,
            url=url,
            config=config,
            plan=placed,
            lease=lease,
            guard=StreamGuard(run, options.stream),
        )
        with bars() as shown:
            driver.run_stages(shown)
        say_what_waits(intake, options.stream)
    return run


def intake_states(run: Run) -> list[IntakeState]:
    """State of the intake after every committed stage."""
    return [record.metrics.stream.intake for record in run.records if record.metrics.stream]


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
    """The requested settings; those that may change within a run as the run at `url` began with."""
    requested = config.model_dump()
    if not Folder.at(url).exists(layout.CONFIG):
        return requested
    stored = Run.read(url).config.get("stream", {})
    return {**requested, **{key: stored[key] for key in CHANGEABLE if key in stored}}


def arrivals(options: Stream, schema: LogSchema) -> Arrivals:
    """ConfigError where the source is neither a directory nor a topic that can be read."""
    if options.source.startswith(SCHEME):
        return KafkaArrivals(options.source, schema, options.kafka)
    return DirectoryArrivals(absolute(options.source), schema)


if __name__ == "__main__":
    sys.exit(run_command(Stream, "diet-ray stream", Stream.defaults))

"""Keep distilling as a log arrives in files or messages: the memory follows the stream.

The stages are those of `distill`; only where the blocks come from differs. One record commits what a stage
took from where, the vocabulary, the checkpoint, the memory and the metrics: whatever is killed when, no row
is lost or taken twice.
"""

import sys
from functools import partial
from typing import Any

from rich.markup import escape

from actors.kafka import SCHEME, KafkaArrivals
from diet_ray import layout
from diet_ray.distillation.memory_update import check_reference
from diet_ray.errors import ConfigError
from diet_ray.evaluation.verdicts.evidence import of_stream
from diet_ray.evaluation.verdicts.verdict import verdict
from diet_ray.lease import Lease
from diet_ray.log.schema import LogSchema, load_schema
from diet_ray.log.stream.arrivals import Arrivals, DirectoryArrivals
from diet_ray.log.stream.config import StreamConfig
from diet_ray.log.stream.intake import Intake
from diet_ray.log.stream.intake_state import IntakeState
from diet_ray.log.stream.log import StreamLog
from diet_ray.runs.history import log_identity
from diet_ray.runs.run import Run
from diet_ray.storage import Folder, absolute, is_below
from pipelines.options.stream import Stream
from pipelines.runtime.command import keeping, run_command, say_next
from pipelines.runtime.driver import Driver
from pipelines.runtime.exported_metrics import Health
from pipelines.runtime.micro_blocks import MicroBlocks, Pace
from pipelines.runtime.placement import place
from pipelines.runtime.progress import Whole, bars, console
from pipelines.runtime.run_access import kept_stages
from pipelines.runtime.stream_guard import StreamGuard

CHANGEABLE = ("block_seconds", "min_rows", "ahead", "probe_every", "max_fall")  # within a run


def execute(options: Stream) -> None:
    run = stream(options)
    if evidence := of_stream(run.records):
        console.print(verdict(evidence).text, markup=False)
    say_next("report", options.run)


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
        with keeping(partial(kept_stages, run)), bars(Whole(None, run.stage)) as shown:
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

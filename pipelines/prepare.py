"""Turn a raw log into encoded blocks: the first command anyone runs."""

import sys

from diet_ray.errors import ConfigError, DataError
from diet_ray.log.dataset import MANIFEST, PreparedLog
from diet_ray.log.drift import drift_schema, write_drift_log
from diet_ray.log.preparation.origin import raw_bytes, unread_files
from diet_ray.log.preparation.prepare import in_process, prepare
from diet_ray.log.preparation.preview import check_first_rows, preview
from diet_ray.log.schema import LogSchema, load_schema
from diet_ray.storage import Folder, absolute
from pipelines.options.prepare import Prepare
from pipelines.reporting.prepared import prepared_tables, preview_tables, unread
from pipelines.runtime.command import run_command, say_next
from pipelines.runtime.progress import bars, console

# Raw files up to this size are prepared in this process: that takes less time than Ray takes to start.
IN_PROCESS_BYTES = 32 << 20


def execute(options: Prepare) -> None:
    if options.check:
        return check(*_raw_log(options))
    if options.out is None:
        raise ConfigError("--out is missing: the directory of the prepared log")
    out = absolute(options.out)
    source, schema = _drift(options, out) if options.dataset == "drift" else _raw_log(options)
    over_cluster = False
    if not Folder.at(out).exists(MANIFEST):
        check_first_rows(schema, source, out)
        Folder.at(out).check_writable()
        over_cluster = raw_bytes(schema, source, out) > IN_PROCESS_BYTES
    if over_cluster:
        from actors.data import RayMapper  # imports Ray, which a small log and --check do not need

        with bars() as shown:
            log = prepare(schema, source, out, RayMapper(shown.follow))
    else:
        log = prepare(schema, source, out, in_process)
    show(log, schema, source, out)
    say_next("distill", "--data", options.out, "--run", f"runs/{log.name}")


def _drift(options: Prepare, out: str) -> tuple[str, LogSchema]:
    if options.source is not None:
        raise ConfigError("--dataset drift generates its log; leave --source out")
    Folder.at(out).check_writable()
    return write_drift_log(options.drift, out), drift_schema(options.drift)


def _raw_log(options: Prepare) -> tuple[str, LogSchema]:
    if options.dataset == "drift":
        raise ConfigError("--dataset drift generates its log: there is nothing to check")
    if options.source is None:
        raise ConfigError(f"--dataset {options.dataset} needs --source, the raw log's file or directory")
    return absolute(options.source), load_schema(options.dataset)


def check(source: str, schema: LogSchema) -> None:
    """Print what the first rows become; DataError where there is a file that cannot be read."""
    first = preview(schema, source)
    for part in preview_tables(first):
        console.print(part)
    if names := unread_files(schema, source):
        console.print(unread(names))
    if any(file.problem for file in first.files):
        raise DataError(f"{source} cannot be prepared with this schema; see the problems above")


def show(log: PreparedLog, schema: LogSchema, source: str, out: str) -> None:
    """Print what was understood."""
    for part in prepared_tables(log):
        console.print(part)
    if names := unread_files(schema, source, out):
        console.print(unread(names))
    about = f"{log.name}: {len(log.fields)} fields, {len(log.tasks)} tasks, prepared at {out}"
    console.print(about, markup=False)


if __name__ == "__main__":
    sys.exit(run_command(Prepare, "diet-ray prepare"))

"""Turn a raw log into encoded blocks: the first command anyone runs."""

import sys
from dataclasses import dataclass

from diet_ray.errors import ConfigError, DataError
from diet_ray.log.dataset import MANIFEST, PreparedLog
from diet_ray.log.drift import DriftConfig, drift_schema, write_drift_log
from diet_ray.log.preparation.origin import unread_files
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.preparation.preview import check_first_rows, preview
from diet_ray.log.schema import LogSchema, load_schema
from diet_ray.storage import Folder, absolute
from pipelines.reporting.prepared import prepared_tables, preview_tables, unread
from pipelines.runtime.command import run_command, say_next
from pipelines.runtime.progress import bars, console


@dataclass(frozen=True)
class Prepare:
    """Encode a raw log into the blocks of its schema.

    $ diet-ray prepare --dataset globo --source GLOBO_DIR --out data/globo

    $ diet-ray prepare --dataset myshop.yaml --source clicks.parquet --out data/myshop

    $ diet-ray prepare --dataset myshop.yaml --source clicks.parquet --out data/myshop --check

    $ diet-ray prepare --dataset drift --out data/drift --drift.rows 1000000 --drift.kind abrupt

    Built in: globo, kuairand, tmall, taobao, as their publishers distribute them; drift is generated. The
    command ends with a table per block of what was understood.
    """

    dataset: str
    """globo, kuairand, tmall, taobao, drift, or a YAML file that describes your log."""
    out: str | None = None
    """Directory of the prepared log; new, or the result of the same preparation. --check needs none."""
    source: str | None = None
    """The raw log: a file or a directory, local or any fsspec URL. drift needs none."""
    check: bool = False
    """Read the first rows of each file and print what they become, without writing anything."""
    drift: DriftConfig = DriftConfig()
    """Settings of the generated log."""

    def __call__(self) -> None:
        if self.check:
            return check(*self._raw_log())
        if self.out is None:
            raise ConfigError("--out is missing: the directory of the prepared log")
        out = absolute(self.out)
        source, schema = self._drift(out) if self.dataset == "drift" else self._raw_log()
        if not Folder.at(out).exists(MANIFEST):
            check_first_rows(schema, source, out)
            Folder.at(out).check_writable()
        from actors.data import RayMapper  # imports Ray, which --help and --check do not need

        with bars() as shown:
            log = prepare(schema, source, out, RayMapper(shown.follow))
        show(log, schema, source, out)
        say_next("distill", "--data", self.out, "--run", f"runs/{log.name}")

    def _drift(self, out: str) -> tuple[str, LogSchema]:
        if self.source is not None:
            raise ConfigError("--dataset drift generates its log; leave --source out")
        Folder.at(out).check_writable()
        return write_drift_log(self.drift, out), drift_schema(self.drift)

    def _raw_log(self) -> tuple[str, LogSchema]:
        if self.dataset == "drift":
            raise ConfigError("--dataset drift generates its log: there is nothing to check")
        if self.source is None:
            raise ConfigError(f"--dataset {self.dataset} needs --source, the raw log's file or directory")
        return absolute(self.source), load_schema(self.dataset)


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

"""One page on a run: whether its memory is good, its evaluation, studies, searches and stages."""

import platform
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import pandas as pd
import yaml

from diet_ray import layout
from diet_ray.runs.run import Run
from diet_ray.storage import file_at
from diet_ray.version import __version__
from pipelines.inspection import reference_text
from pipelines.options.report import Report
from pipelines.reporting import comparisons
from pipelines.reporting.page import Folded, Part, Section, Words, page
from pipelines.reporting.searches import searched, searches
from pipelines.reporting.sizes import size_text
from pipelines.reporting.stages import composition, stages, stream
from pipelines.reporting.summary import WORDS, summary
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import console

Show = Callable[[pd.DataFrame], Iterator[Part]]


def execute(options: Report) -> None:
    run = Run.read(options.run)
    content = report(run, datetime.now(UTC)).encode()
    folder, name = file_at(options.out, layout.REPORT) if options.out else (run.folder, layout.REPORT)
    folder.write(name, content)
    console.print(f"{folder / name}: {size_text(len(content))}", soft_wrap=True)


def report(run: Run, written: datetime) -> str:
    """The page; sections for which the run has nothing are left out."""
    config = run.config
    about = [
        f"Log {config['log']}, reference {reference_text(config)}, ratio {config['ratio']:.2%}, "
        f"seed {config['seed']}, {run.stage} stages.",
        "diet_ray: streaming dataset distillation for recommender models (arXiv 2603.24958).",
    ]
    name = run.folder.root.rsplit("/", 1)[-1]
    versions = ", ".join(f"{package} {version(package)}" for package in ("ray", "torch", "pandas"))
    python = f"Python {platform.python_version()}"
    footer = f"Written {written:%Y-%m-%d %H:%M} UTC by diet_ray {__version__} ({python}, {versions})."
    return page(f"Run {name}", about, list(_sections(run)), footer)


def _sections(run: Run) -> Iterator[Section]:
    table3 = f"{layout.study('table3')}.parquet"
    cells = table3 if run.folder.exists(table3) else f"{layout.EVALUATION_RESULTS}.parquet"
    yield Section("Verdict", list(summary(run)))
    study = partial(_study, run)
    yield study("Comparison", cells, comparisons.comparison)
    yield study("Without the subsequent block", cells, comparisons.before)
    yield from (
        study(
            "Search" if name == "search" else f"Search: {name}",
            f"{name}/{layout.SEARCH_RESULTS}.parquet",
            searched,
        )
        for name in searches(run.folder)
    )
    yield Section("Stream", list(stream(run)))
    for heading, name, show in (
        ("Ranking", "ranking", comparisons.ranking),
        ("Ratio", "ratio", comparisons.ratio),
        ("Ratio and reference", "figure3", comparisons.figure3),
        ("Reference", "reference", comparisons.references),
        ("Parts switched off", "table4", comparisons.ablation),
        ("Trajectories", "figure1", comparisons.trajectories),
        ("Cost", "table5", comparisons.cost),
    ):
        yield study(heading, f"{layout.study(name)}.parquet", show)
    yield Section("Stages", list(stages(run.records)))
    yield Section("Composition of the memory", list(composition(run.records)))
    yield Section("Settings", [Folded("config.yaml", yaml.safe_dump(run.config, sort_keys=True))])
    yield Section("Glossary", [Words(WORDS)])


def _study(run: Run, heading: str, path: str, show: Show) -> Section:
    if not run.folder.exists(path):
        return Section(heading, [])
    return Section(heading, list(show(run.folder.read_parquet(path).to_pandas())))


if __name__ == "__main__":
    sys.exit(run_command(Report, "diet-ray report"))

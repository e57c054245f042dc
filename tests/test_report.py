"""The report: one page without network, of what a run has by now."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diet_ray.evaluation.methods import METHODS
from diet_ray.runs.run import Run
from pipelines.report import Report, report
from pipelines.reporting.charts import pareto_front
from pipelines.reporting.page import page, table
from pipelines.runtime.run_access import write_table


class Reader(HTMLParser):
    """Collects headings and whatever a browser would fetch; a tag closed in the wrong order is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.fetched.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(content: str) -> Reader:
    reader = Reader()
    reader.feed(content)
    assert not reader.open and not reader.fetched
    assert "<script" not in content and "@import" not in content and "url(http" not in content
    return reader


def cells(methods: tuple[str, ...], candidates: int, seeds: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    names = [(m, f"c{c}", s) for s in range(seeds) for c in range(candidates) for m in methods]
    found = pd.DataFrame(names, columns=["method", "candidate", "seed"])
    for column in ("auc", "logloss", "auc_before", "logloss_before", "seconds"):
        found[column] = draw.uniform(0.5, 0.8, len(found))
    found.loc[found["method"] == "cold", ["auc_before", "logloss_before"]] = float("nan")
    return found


def records_alone(run_dir: str, folder: Path) -> Run:
    """The config and the records of a run, without what they name."""
    shutil.copy(f"{run_dir}/config.yaml", folder)
    shutil.copytree(f"{run_dir}/stages", folder / "stages")
    return Run.read(str(folder))


@pytest.fixture
def full_run(run_dir: str, tmp_path: Path) -> Run:
    """A run beside which results of every kind lie."""
    own = records_alone(run_dir, tmp_path)
    folder = own.folder
    write_table(folder, "evaluation/results", cells(METHODS, 3, 2))
    write_table(folder, "studies/ranking", cells(("full", "diet", "random"), 6, 2))
    variants = [cells(("diet", "random"), 2, 1).assign(variant=f"{share}%") for share in (0.5, 1.5, 5)]
    write_table(folder, "studies/ratio", pd.concat(variants))
    figure3 = [
        c.assign(variant=f"{name} {c['variant'].iloc[0]}") for c in variants for name in ("dcn", "wukong")
    ]
    write_table(folder, "studies/figure3", pd.concat(figure3))
    references = [cells(("diet", "random"), 2, 1).assign(variant=name) for name in ("dcn", "wukong")]
    write_table(folder, "studies/reference", pd.concat(references))
    write_table(folder, "studies/table4", cells(("diet",), 2, 2).assign(variant="without MF"))
    points = [
        {"method": "full", "candidate": "dcn", "seed": 0, "steps": n, "auc": 0.6 + n / 99}
        for n in range(1, 5)
    ]
    write_table(folder, "studies/figure1", pd.DataFrame(points))
    costs = {"method": "full", "candidate": "dcn", "seed": 0, "seconds_epoch": 9.0, "seconds_history": 9.0}
    write_table(folder, "studies/table5", pd.DataFrame([{**costs, "peak_bytes": 5e8}]))
    trials = pd.DataFrame(
        {
            "number": range(4),
            "model": ["dcn", "dcn", "my:<Net>", "wukong"],
            "candidate": ['{"options": {"a": 1}}'] * 4,
            "learning_rate": [1e-4, 1e-3, 1e-3, 1e-2],
            "state": ["finished", "stopped", "finished", "failed"],
            "epochs": [8, 1, 5, 0],
            "seconds": [9.0, 2.0, 5.0, 0.0],
            "auc": [0.7, 0.6, 0.71, float("nan")],
            "confirmed_test_auc": [0.7, float("nan"), float("nan"), float("nan")],
        }
    )
    write_table(folder, "search/results", trials)
    folder.write("search/best.yaml", b"name: dcn\n")
    return own


def test_a_fresh_run_shows_its_memory_and_stages_alone(run_dir: str, tmp_path: Path) -> None:
    own = records_alone(run_dir, tmp_path)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    shutil.copy(tmp_path / "config.yaml", nothing)
    assert read(report(Run.read(str(nothing)))).headings == ["Settings"]
    assert read(report(own)).headings == ["Memory", "Stages", "Settings"]


def test_every_kind_of_result_has_its_section(full_run: Run) -> None:
    content = report(full_run)
    assert read(content).headings == [
        "Comparison",
        "Without the subsequent block",
        "Ranking",
        "Ratio",
        "Ratio and reference",
        "Reference",
        "Parts switched off",
        "Trajectories",
        "Cost",
        "Search: search",
        "Memory",
        "Stages",
        "Settings",
    ]
    assert content.count("<svg") == 9
    assert report(full_run) == content  # the same bytes again


def test_figures_of_the_page_are_those_of_the_results(full_run: Run) -> None:
    content = report(full_run)
    found = full_run.folder.read_parquet("evaluation/results.parquet").to_pandas()
    mine = found[(found["method"] == "diet") & (found["candidate"] == "c1")]["auc"]
    assert f"{mine.mean():.4f} ± {mine.std():.4f}" in content
    wide = found.pivot_table(index=["candidate", "seed"], columns="method", values="auc")
    lead = wide["diet"] - wide["random"]
    assert f"{lead.mean():+.4f}" in content and f"{(lead > 0).sum()} of {len(lead)}" in content


def test_names_of_the_users_are_text_not_markup(full_run: Run) -> None:
    content = report(full_run)
    assert "<Net>" not in re.sub(r"<svg.*?</svg>", "", content, flags=re.S) and "my:&lt;Net&gt;" in content
    assert "&lt;b&gt;" in page("<b>", ["<b>"], [("<b>", "x")]) and "<b>" not in table(["<b>"], [["<b>"]])


def test_a_pareto_front_by_hand() -> None:
    cost, quality = [3, 1, 2, 4, 1], [0.7, 0.5, 0.5, 0.9, 0.6]
    assert pareto_front(cost, quality) == [4, 0, 3]


def test_the_command_writes_a_file_or_into_a_folder(run_dir: str, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for out, written in (("a/page.html", "a/page.html"), ("pages", "pages/report.html")):
        Report(run_dir, out=str(tmp_path / out))()
        assert read((tmp_path / written).read_text()).headings[-1] == "Settings"
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["report.html"]

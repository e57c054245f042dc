"""The report: one page without network, of what a run has by now."""

import json
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diet_ray import layout
from diet_ray.evaluation.verdicts.verdict import Contrast, Evidence
from diet_ray.runs.run import Run
from diet_ray.storage import Folder
from pipelines.options.report import Report
from pipelines.report import report
from pipelines.reporting.charts import pareto_front
from pipelines.reporting.page import Section, Text, page, table
from pipelines.reporting.searches import quality_and_cost
from pipelines.reporting.stages import GROUPS, MOST
from tests.report_runs import trials, write_results, write_stream

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
VOID = ("meta", "br")


class Reader(HTMLParser):
    """Collects headings, charts and whatever a browser would fetch; a tag closed out of order is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.fetched: list[str] = []
        self.charts: list[dict[str, Any]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.fetched.append(value)
            if key == "data-spec":
                self.charts.append(json.loads(value or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def read(content: str) -> Reader:
    reader = Reader()
    reader.feed(content)
    assert not reader.open and not reader.fetched
    shown = re.sub(r"<script>.*?</script>", "", content, flags=re.S)
    assert "@import" not in shown and "<link" not in shown and "url(http" not in shown
    assert all("url" not in chart.get("data", {}) for chart in reader.charts)
    return reader


def records_alone(run_dir: str, folder: Path) -> Run:
    """The config and the records of a run, without what they name."""
    shutil.copy(f"{run_dir}/config.yaml", folder)
    shutil.copytree(f"{run_dir}/stages", folder / "stages")
    return Run.read(str(folder))


@pytest.fixture
def full_run(run_dir: str, tmp_path: Path) -> Run:
    """A run beside which results of every kind lie."""
    own = records_alone(run_dir, tmp_path)
    write_results(own.folder)
    return own


def test_a_fresh_run_shows_its_memory_and_stages_alone(run_dir: str, tmp_path: Path) -> None:
    own = records_alone(run_dir, tmp_path)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    shutil.copy(tmp_path / "config.yaml", nothing)
    bare = read(report(Run.read(str(nothing)), NOW))
    assert bare.headings == ["Verdict", "Settings", "Glossary"] and not bare.charts
    fresh = read(report(own, NOW))
    assert fresh.headings == ["Verdict", "Stages", "Composition of the memory", "Settings", "Glossary"]
    assert "Nobody has judged this memory yet" in fresh.text


def test_every_kind_of_result_has_its_section(full_run: Run) -> None:
    content = report(full_run, NOW)
    found = read(content)
    assert found.headings == [
        "Verdict",
        "Comparison",
        "Without the subsequent block",
        "Search",
        "Ranking",
        "Ratio",
        "Ratio and reference",
        "Reference",
        "Parts switched off",
        "Trajectories",
        "Cost",
        "Stages",
        "Composition of the memory",
        "Settings",
        "Glossary",
    ]
    assert len(found.charts) == 9
    assert report(full_run, NOW) == content  # the same bytes again
    assert "Written 2026-11-27 12:00 UTC by diet_ray" in found.text


def test_figures_of_the_page_are_those_of_the_results(full_run: Run) -> None:
    found = full_run.folder.read_parquet("evaluation/results.parquet").to_pandas()
    text = read(report(full_run, NOW)).text
    mine = found[(found["method"] == "diet") & (found["candidate"] == "dcnv2")]["auc"]
    assert f"{mine.mean():.4f} ± {mine.std():.4f}" in text
    wide = found.pivot_table(index=["candidate", "seed"], columns="method", values="auc")
    for other in ("random", "full"):
        lead = wide["diet"] - wide[other]
        size = f"{lead.mean():+.4f} ± {lead.std() / len(lead) ** 0.5:.4f}"
        assert size in text and f"{(lead > 0).sum()} of {len(lead)}" in text
    assert "dcn *" in text and "dcnv2 *" not in text  # a member of the reference


def test_the_verdict_of_the_probe_stands_where_nothing_was_evaluated(run_dir: str, tmp_path: Path) -> None:
    own = records_alone(run_dir, tmp_path)
    contrasts = (Contrast(other="random", auc=0.7, gap=0.0123, error=0.0011),)
    evidence = Evidence(stage=3, auc=0.7123, contrasts=contrasts, seeds=2, where="block x", basis="a probe")
    own.folder.write_json(layout.VERDICT, evidence.model_dump(mode="json"))
    assert "better than random rows by 0.0123 ± 0.0011" in read(report(own, NOW)).text
    # A verdict on an older memory is none on this one.
    own.folder.write_json(layout.VERDICT, evidence.model_copy(update={"stage": 2}).model_dump(mode="json"))
    assert "Nobody has judged" in read(report(own, NOW)).text


def test_a_stream_of_many_stages_is_summarised(tmp_path: Path) -> None:
    run = write_stream(tmp_path, 2 * MOST + 1)
    found = read(report(run, NOW))
    assert found.headings == [
        "Verdict",
        "Stream",
        "Stages",
        "Composition of the memory",
        "Settings",
        "Glossary",
    ]
    assert f"25 stages in {GROUPS} groups" in found.text and "1 to 3" in found.text
    probed = [record.metrics for record in run.records if record.metrics.probe and record.metrics.progressive]
    gaps = pd.Series([m.probe.auc - m.progressive.auc for m in probed if m.probe and m.progressive])
    assert f"{gaps.mean():+.4f}" in found.text
    late = sum(record.metrics.stream.counts["late"] for record in run.records if record.metrics.stream)
    assert re.search(rf"late\s*{late}\s", found.text)
    rows = sum(record.metrics.block_rows for record in run.records)
    assert f"of {rows:,}" in found.text


def test_a_search_with_judges_has_its_own_score_noise_and_cost() -> None:
    judged = trials().assign(pieces=[8, 2, 8, 0], objective=[0.7, 0.6, 0.72, float("nan")])
    judged = judged.assign(deviation=[0.001, float("nan"), 0.002, float("nan")], cost=[0.3, 0.1, 0.2, 0.0])
    found = quality_and_cost(judged)
    assert list(found["quality"][:3]) == [0.7, 0.6, 0.72] and list(found["cost"][:3]) == [0.3, 0.1, 0.2]
    assert found["low"][0] == pytest.approx(0.699) and pd.isna(found["low"][1])
    plain = quality_and_cost(trials())
    assert list(plain["quality"][:3]) == [0.7, 0.6, 0.71] and list(plain["cost"][:3]) == [9, 2, 5]
    # Best of each seed: 0.69 and 0.71.
    assert plain["noise"][0] == pytest.approx(0.01) and plain["noise"][1] == 0
    assert pd.isna(quality_and_cost(trials().drop(columns="epoch_auc"))["noise"]).all()


def test_names_of_the_users_are_text_not_markup(full_run: Run) -> None:
    content = report(full_run, NOW)
    assert "<Net>" not in content and "my:&lt;Net&gt;" in content
    made = page("<b>", ["<b>"], [Section("<b>", [Text("<b> `x`"), *table(["<b>"], [["<b>"]])])], "<b>")
    assert "<b>" not in made and made.count("&lt;b&gt;") == 10 and "<code>x</code>" in made


def test_a_pareto_front_by_hand() -> None:
    cost, quality = [3, 1, 2, 4, 1], [0.7, 0.5, 0.5, 0.9, 0.6]
    assert pareto_front(cost, quality) == [4, 0, 3]


def test_the_command_writes_a_file_or_into_a_folder(run_dir: str, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for out, written in (("a/page.html", "a/page.html"), ("pages", "pages/report.html")):
        Report(run_dir, out=str(tmp_path / out))()
        assert read((tmp_path / written).read_text()).headings[-1] == "Glossary"
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["report.html"]


BROWSER = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
SHORTEST = 4  # pixels by which two texts may share a line: glyphs are narrower than their boxes

OVERLAPS = """
(least) => {
  const boxes = [...document.querySelectorAll(".chart svg text, h1, h2, p, td, th, figcaption, dt, dd")]
    .filter((element) => element.textContent.trim() && element.getClientRects().length)
    .map((element) => [element, element.getBoundingClientRect()]);
  const found = [];
  boxes.forEach(([one, a], n) => boxes.slice(n + 1).forEach(([other, b]) => {
    if (one.contains(other)) return;
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > least && high > least) found.push(`${one.textContent} | ${other.textContent}`);
  }));
  return found;
}
"""
OUTSIDE = """
() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getClientRects().length && (e.getBoundingClientRect().right > innerWidth + 1
    || e.getBoundingClientRect().left < -1))
  .map((e) => `${e.tagName} ${e.textContent.slice(0, 40)}`)
"""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt install chromium")
@pytest.mark.parametrize("stages", [3, 300])
def test_a_browser_shows_the_page_at_both_widths(run_dir: str, tmp_path: Path, stages: int) -> None:
    from playwright.sync_api import sync_playwright

    if stages == 3:
        run = records_alone(run_dir, tmp_path)
        write_results(run.folder)
    else:
        run = write_stream(tmp_path, stages)
    content = report(run, NOW)
    Folder.at(str(tmp_path)).write("page.html", content.encode())
    assert len(content) < 2_000_000
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for width, scheme in ((1000, "light"), (1000, "dark"), (390, "light"), (390, "dark")):
            page_ = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            said: list[str] = []
            asked: list[str] = []
            page_.on("console", lambda message, said=said: said.append(message.text))
            page_.on("pageerror", lambda error, said=said: said.append(str(error)))
            page_.on("request", lambda request, asked=asked: asked.append(request.url))
            page_.goto((tmp_path / "page.html").as_uri())
            drawn = "[...document.querySelectorAll('.chart')].every((place) => place.dataset.drawn)"
            page_.wait_for_function(drawn, timeout=300_000)
            assert not said and len(asked) == 1
            assert page_.evaluate("document.documentElement.scrollWidth") == width
            assert not page_.evaluate(OUTSIDE)
            assert not page_.evaluate(OVERLAPS, SHORTEST)
            empty = (
                "[...document.querySelectorAll('.chart')].filter((c) => !c.querySelector('svg .mark-text'))"
            )
            assert page_.evaluate(f"{empty}.length") == 0
            ink, paper = page_.evaluate(
                "[getComputedStyle(document.querySelector('.chart svg text')).fill,"
                " getComputedStyle(document.body).backgroundColor]"
            )
            assert (_light(ink), _light(paper)) == ((False, True) if scheme == "light" else (True, False))
            page_.screenshot(path=str(tmp_path / f"{width}-{scheme}.png"), full_page=True)
        browser.close()


def _light(colour: str) -> bool:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128

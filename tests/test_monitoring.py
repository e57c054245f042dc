"""What an operator sees: metrics, the dashboard, the tables of long runs, and the page that explains them."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console
from rich.table import Table

from actors.placement import Node, ResourceConfig, plan
from diet_ray.evaluation.methods import METHODS
from diet_ray.log.stream import intake
from diet_ray.runs.metrics import MemoryMetrics
from diet_ray.runs.records import StageRecord
from diet_ray.storage import FileStamp
from pipelines import inspection, study
from pipelines.evaluate import results_table
from pipelines.reporting.tables import plain_table
from pipelines.runtime import exported_metrics
from pipelines.runtime.exported_metrics import (
    COUNTERS,
    HISTOGRAMS,
    ROWS,
    SET_ASIDE,
    Health,
    counted,
)
from pipelines.runtime.health import GAUGES
from pipelines.runtime.placement import placement_table
from pipelines.status import MEANING, newest_counts, status, status_table
from pipelines.studies.ranking_table import ranking_agreement
from tests import report_runs
from tests.report_runs import write_stream
from tests.tiny_run import stage_metrics, with_files

DOCS = Path(__file__).parents[1] / "docs"
VALUES = {
    "block_rows": 500,
    "seconds_to_commit": 3.5,
    "quarantined": {"late": 3, "duplicates": 2, "malformed": 1, "files_quarantined": 4, "numbers read": 9},
}


def test_a_stage_adds_its_rows_and_what_was_set_aside_to_the_counters() -> None:
    assert counted(VALUES) == {
        "rows": 500,
        "late_rows": 3,
        "ahead_rows": 0,
        "duplicate_rows": 2,
        "malformed_rows": 1,
        "skipped_rows": 0,
        "unreadable_files": 4,
    }


def test_every_reason_of_the_intake_has_a_counter() -> None:
    source = Path(intake.__file__).read_text()
    reasons = set(re.findall(r'_set_aside\("(\w+)"', source)) | set(re.findall(r'counts\["(\w+)"', source))
    assert reasons == set(SET_ASIDE.values()) and COUNTERS.keys() == {ROWS, *SET_ASIDE}


class Recorded:
    """A metric that keeps what it is told."""

    made: ClassVar[dict[str, "Recorded"]] = {}

    def __init__(self, name: str, *more: Any) -> None:
        self.values: list[float] = []
        self.made[name] = self

    def set_default_tags(self, tags: dict[str, str]) -> None:
        self.tags = tags

    def set(self, value: float) -> None:
        self.values.append(value)

    inc = observe = _record = set


def test_after_each_stage_the_metrics_of_its_run_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorded.made = {}
    for kind in ("Gauge", "Counter", "Histogram"):
        monkeypatch.setattr(exported_metrics, kind, Recorded)
    values = {**dict.fromkeys(GAUGES, 0.5), "probe_auc": None, **VALUES}
    monkeypatch.setattr(exported_metrics, "health", lambda run: values)
    report = Health(with_files(tmp_path, {"seed": 0}, 1), json_log=False)
    report()
    report()
    told = {name.removeprefix("diet_ray_"): metric.values for name, metric in Recorded.made.items()}
    assert told.keys() == GAUGES.keys() | COUNTERS.keys() | HISTOGRAMS.keys()
    assert told["stage"] == [0.5, 0.5] and told["probe_auc"] == []
    assert told["late_rows"] == [0, 3, 3] and told["ahead_rows"] == [0]  # an alert sees the first event
    assert told["rows"] == [0, 500, 500] and told["commit_seconds"] == [3.5, 3.5]
    assert {metric.tags["run"] for metric in Recorded.made.values()} == {str(tmp_path)}


def exported() -> set[str]:
    """The names under which Ray's Prometheus endpoint shows the metrics."""
    buckets = {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
    return {f"ray_diet_ray_{name}" for name in {*GAUGES, *(f"{name}_total" for name in COUNTERS), *buckets}}


def test_every_metric_of_the_dashboard_exists_and_it_shows_all_of_them() -> None:
    board = json.loads((DOCS / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for text in expressions for name in re.findall(r"\w*diet_ray\w*", text)}
    assert used <= exported()
    assert len(used) == len(GAUGES) + len(COUNTERS) + len(HISTOGRAMS)
    variable = next(each for each in board["templating"]["list"] if each["name"] == "run")
    assert re.findall(r"\w*diet_ray\w*", variable["query"]["query"]) == ["ray_diet_ray_stage"]
    assert all('{run=~"$run"}' in text for text in expressions)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for one in board["panels"]:
        assert one["title"] and one["description"]
        for other in board["panels"]:
            a, b = one["gridPos"], other["gridPos"]
            apart = a["x"] + a["w"] <= b["x"] or a["y"] + a["h"] <= b["y"]
            assert one is other or apart or b["x"] + b["w"] <= a["x"] or b["y"] + b["h"] <= a["y"]


def test_the_page_about_operations_explains_every_metric_and_uses_only_those_there_are() -> None:
    page = (DOCS / "operations.md").read_text()
    for name in exported():
        assert f"`{name}`" in page or name.rpartition("_")[2] in ("sum", "count"), name
    for name in MEANING:
        assert f"`{name}`" in page, name
    assert set(re.findall(r"ray_diet_ray_\w+", page)) <= exported()


def shown(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    return out.getvalue()


STATE = {
    **dict.fromkeys(MEANING, 0.123456),
    "written_by": "process 4194304 on a-machine-with-a-long-name.example.com",
    "closed_at": 1_700_000_000.0,
    "memory_rows_by_stage": {stage: 1000 for stage in range(1, 301)},
    "label_rates": {"is_click": 0.31, "long_view": 0.2, "is_like": 0.01},
    "quarantined_in_all": {"late": 10_000, "duplicates": 12_345, "malformed": 99},
}


def test_status_says_what_everything_means_within_80_columns() -> None:
    text = shown(status_table(STATE))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text and "how old the memory is" in text
    assert "older: 296,000" in text and len(text.splitlines()) < 70
    assert newest_counts({1: 5, 2: 6}) == {"2": 6, "1": 5}


def test_status_of_a_stream_of_300_stages_is_explained_whole(tmp_path: Path) -> None:
    state = status(write_stream(tmp_path, 300))
    assert state.keys() == MEANING.keys()
    assert max(map(len, shown(status_table(state)).splitlines())) <= 80


def records(stages: int) -> list[StageRecord]:
    files = tuple(FileStamp(f"{part}/x", 123_456_789, "") for part in ("reference", "memory"))
    return [
        StageRecord(
            stage,
            f"{stage:04d}",
            "",
            "",
            files,
            stage_metrics(30_000).model_copy(
                update={
                    "memory": MemoryMetrics(
                        rows=50_000,
                        rows_by_stage={n: n for n in range(1, stage + 1)},
                        rows_by_label_group={0: 50_000},
                        outer_loss=(0.7, 0.6),
                    )
                }
            ),
        )
        for stage in range(1, stages + 1)
    ]


@pytest.mark.parametrize("stages", [1, 3, 11, 12, 300])
def test_the_tables_of_a_run_stay_short_and_within_80_columns(stages: int) -> None:
    run = records(stages)
    for table in (inspection.stage_table, inspection.time_table, inspection.survival_table):
        text = shown(table(run))
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text
        assert len(text.splitlines()) <= 20
    assert str(stages) in shown(inspection.stage_table(run))


NODES = [Node(2, 0)] * 3 + [Node(64, 8)] * 4 + [Node(96, 4)]


def wide_tables() -> Iterator[tuple[Table, set[str]]]:
    """Tables with as many columns as they come with, and numbers that each must show whole."""
    yield placement_table(NODES, plan(NODES, ResourceConfig())), {"64", "34"}
    cells = report_runs.cells(METHODS, 5, 2)
    yield results_table(cells), {f"{value:.4f}" for value in cells.groupby("method")["auc"].mean()}
    studied = cells.assign(variant="realignment of old rows", seconds_epoch=123.45, seconds_history=34567.8)
    yield (
        study.summary(studied),
        {"123.5", "34,567.8", f"{cells[cells['method'] == 'diet']['auc'].mean():.4f}"},
    )
    agreed = ranking_agreement(cells)
    yield plain_table(agreed, "Agreement"), {f"{value:.4f}" for value in agreed["regret_high"].dropna()}


@pytest.mark.parametrize("table, numbers", list(wide_tables()))
def test_tables_of_many_columns_fit_80(table: Table, numbers: set[str]) -> None:
    text = shown(table)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert numbers <= set(re.findall(r"[\d.,]+", text))


def test_surviving_rows_of_a_long_run_add_up() -> None:
    run, table = records(300), inspection.survival_table(records(300))
    counts = [int(cell.replace(",", "") or 0) for cell in table.columns[-1].cells]
    assert sum(counts) == sum(run[-1].metrics.memory.rows_by_stage.values())
    assert inspection.ranges(300)[0] == (1, 49) and inspection.ranges(300)[-1] == (300, 300)
    for stages in (1, 10, 11, 25):
        covered = [n for first, last in inspection.ranges(stages) for n in range(first, last + 1)]
        assert covered == list(range(1, stages + 1))

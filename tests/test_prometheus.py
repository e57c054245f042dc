"""A stream's metrics as Prometheus scrapes them, over HTTP."""

import re
import time
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import requests
from prometheus_client.parser import text_string_to_metric_families

from diet_ray.log.stream.config import StreamConfig
from pipelines.options.stream import Stream
from pipelines.runtime.recipe import Recipe
from pipelines.status import status
from pipelines.stream import stream
from tests.stream_log import publish, write_log
from tests.tiny_run import TINY

DOCS = Path(__file__).parents[1] / "docs"
DAY = 86_400
DEADLINE_S = 60  # Ray exports every ten seconds
EXPECTED = {"rows": 2000, "duplicate_rows": 7, "late_rows": 5, "ahead_rows": 2, "malformed_rows": 4}
EXPECTED |= {"unreadable_files": 1, "skipped_rows": 0}
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def named(page: str) -> set[str]:
    """Metrics that a page of the documentation names."""
    return set(re.findall(r"ray_diet_ray_\w+", (DOCS / page).read_text()))


def scraped(run: str) -> dict[str, list[float]]:
    """The samples of a run by name; of a histogram one per bucket."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    answer = requests.get(url, timeout=30)
    answer.raise_for_status()
    found = defaultdict(list)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.labels.get("run") == run:
                found[sample.name].append(sample.value)
    return found


def publish_faulty(folder: Path, log: pa.Table) -> None:
    """2,000 good rows, some that are doubled, late, ahead or malformed, and a file that is none."""
    time_column = log.schema.names.index("time_ms")

    def at(rows: pa.Table, *when: object) -> pa.Table:
        return rows.set_column(time_column, "time_ms", pa.array(when))

    publish(folder, "0.parquet", log.slice(500, 1500))
    publish(folder, "1.parquet", log.slice(1990, 7))
    publish(folder, "2.parquet", log.slice(0, 5))
    publish(folder, "3.parquet", at(log.slice(0, 2), *[int(time.time() + 30 * DAY) * 1000] * 2))
    publish(folder, "4.parquet", at(log.slice(0, 3), *"xyz"))
    (folder / "in/5.parquet").write_bytes(b"PAR1")
    publish(folder, "6.parquet", log.slice(2000, 500))


def test_every_metric_that_the_documentation_names_is_scraped(ray_here: None, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    publish_faulty(tmp_path, log)
    run = stream(
        Stream(
            dataset=str(tmp_path / "schema.yaml"),
            source=str(tmp_path / "in"),
            run=str(tmp_path / "run"),
            until_idle=0.3,
            poll=0.05,
            stream=StreamConfig(block_rows=500, min_rows=2, probe_every=2, lateness=4 * DAY),
            settings=Recipe.model_validate(TINY.model_dump()),
        )
    )
    wanted = named("operations.md") | named("grafana-dashboard.json")
    deadline, found = time.monotonic() + DEADLINE_S, scraped(run.folder.root)
    state = status(run)
    while found.get("ray_diet_ray_stage") != [run.stage] and time.monotonic() < deadline:
        time.sleep(1)
        found = scraped(run.folder.root)
    assert wanted <= found.keys()
    for gauge in ("stage", "closed_at", "block_rows", "memory_rows", "progressive_auc", "probe_auc", "el2n"):
        assert found[f"ray_diet_ray_{gauge}"] == [pytest.approx(state[gauge])], gauge
    for counter, count in EXPECTED.items():
        assert found[f"ray_diet_ray_{counter}_total"] == [count], counter
    # Ray gives its buckets' middles as the sum, so only the count is exact.
    assert found["ray_diet_ray_commit_seconds_count"] == [run.stage]

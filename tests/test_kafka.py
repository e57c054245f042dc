"""A topic as the source of a stream, over TCP from a broker that speaks Kafka's protocol."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from actors.kafka import KafkaArrivals
from diet_ray.errors import ConfigError, DataError
from diet_ray.log.schema import LogSchema, parse_schema
from diet_ray.log.stream.arrivals import Piece
from diet_ray.log.stream.config import KafkaConfig, StreamConfig
from diet_ray.log.stream.messages import MESSAGE_ROWS, Message, message_pieces
from diet_ray.log.stream.partitions import Fetched
from pipelines.options.stream import Stream
from pipelines.runtime.recipe import Recipe
from pipelines.stream import stream
from tests.kafka_broker import broker, publish
from tests.stream_log import events, write_log
from tests.tiny_run import TINY

PLAIN = {
    "name": "clicks",
    "time": {"column": "at", "unit": "s"},
    "fields": ["user", {"name": "place", "from": "place", "at_most": 3}],
    "tasks": ["clicked"],
    "event_id": "event",
}


def schema(**changed: Any) -> LogSchema:
    return parse_schema({**PLAIN, **changed}, "test")


def row(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "at": number,
        "user": number % 7,
        "place": number,
        "clicked": number % 2,
        "event": f"e{number}",
    } | changed


def as_json(*rows: Any) -> bytes:
    return json.dumps(rows[0] if len(rows) == 1 else rows).encode()


def as_arrow(*rows: dict[str, Any]) -> bytes:
    table = pa.Table.from_pylist(list(rows))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def piece(*values: bytes | None, coding: Any = "json", **changed: Any) -> Piece:
    messages = [Message(offset, value) for offset, value in enumerate(values, start=5)]
    (found,) = message_pieces("clicks/0", 0, messages, coding, schema(**changed))
    return found


@pytest.mark.parametrize(("coding", "write"), [("json", as_json), ("arrow", as_arrow)])
def test_messages_of_one_row_and_of_many_become_rows_with_their_places(coding: Any, write: Any) -> None:
    found = piece(write(row(1)), write(row(2), row(3)), write(row(4)), coding=coding)
    assert found.rows["ts"].to_pylist() == [1000, 2000, 3000, 4000]
    assert found.rows["place"].to_pylist() == ["1", "2", "3", "3"]
    assert found.place_N.tolist() == [5_000_001, 6_000_001, 6_000_002, 7_000_001]
    assert not found.last and not any(table.num_rows for table in found.rejected)


def test_an_id_in_json_is_the_same_as_text_and_as_number() -> None:
    found = piece(as_json(row(1, user=17), row(2, user="17"), row(3, user=None)))
    assert found.rows["user"].to_pylist() == ["17", "17", None]


@pytest.mark.parametrize(
    ("value", "coding", "reason"),
    [
        (b"{", "json", "Expecting property name"),
        (b"\xff\xfe\xfa", "json", "decode"),
        (b"[" * 100_000, "json", "recursion"),
        (b"7", "json", "neither a JSON object nor a list"),
        (as_json({"at": 1}), "json", "has no key user; it has at"),
        (as_json(row(1, user=[1])), "json", "user is not a single value"),
        (None, "json", "has no value"),
        (b"ARROW", "arrow", "."),
        (as_arrow(row(1))[:200], "arrow", "."),
        (as_arrow({"at": 1}), "arrow", "has no column user, place, clicked, event; it has at"),
    ],
)
def test_a_message_that_cannot_be_read_is_named_or_set_aside_whole(
    value: bytes | None, coding: Any, reason: str
) -> None:
    write = {"json": as_json, "arrow": as_arrow}[coding]
    with pytest.raises(DataError, match=rf"clicks/0, offset 6 cannot be read: .*{reason}"):
        piece(write(row(1)), value, coding=coding)
    found = piece(write(row(1)), value, write(row(2)), coding=coding, malformed="quarantine")
    assert found.rows["ts"].to_pylist() == [1000, 2000]
    (rejected,) = (row for table in found.rejected for row in table.to_pylist())
    assert rejected["row"] == 6_000_001 and rejected["value"] == value and rejected["file"] == "clicks/0"


def test_a_bad_row_of_a_message_is_set_aside_alone() -> None:
    found = piece(as_json(row(1), row(2, clicked=7), row(3, at="soon")), malformed="quarantine")
    assert found.rows["ts"].to_pylist() == [1000]
    assert found.rejected[-1]["row"].to_pylist() == [5_000_002, 5_000_003]
    with pytest.raises(DataError, match="clicks/0, row 5000002: clicked is not 0 or 1"):
        piece(as_json(row(1), row(2, clicked=7)))


def test_one_message_does_not_condemn_its_neighbours() -> None:
    values = [
        as_json(row(1)),
        as_json(row(2, place="x")),
        as_json(row(3, user="\ud800")),
        as_json(row(4)),
        b"[]",
    ]
    messages = [Message(offset, value) for offset, value in enumerate(values)]
    found = list(message_pieces("clicks/0", 0, messages, "json", schema(malformed="quarantine")))
    assert [ts for each in found for ts in each.rows["ts"].to_pylist()] == [1000, 4000]
    assert [(each.start, each.stop) for each in found] == list(pairwise([0, *(each.stop for each in found)]))
    assert found[-1].stop == 5 * MESSAGE_ROWS
    aside = [line["row"] for each in found for table in each.rejected for line in table.to_pylist()]
    assert sorted(aside) == [MESSAGE_ROWS + 1, 2 * MESSAGE_ROWS + 1]
    with pytest.raises(DataError, match="clicks/0"):
        list(message_pieces("clicks/0", 0, messages, "json", schema()))


def test_fractions_stay_fractions() -> None:
    tasks = [{"name": "long", "from": "share", "at_least": 0.5}]
    found = piece(as_json(row(1, share=0.7, at=1.75)), as_json(row(2, share=0.2)), tasks=tasks)
    assert found.rows["long"].to_pylist() == [1, 0] and found.rows["ts"].to_pylist() == [1750, 2000]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with broker() as found:
        yield found


def arrivals(address: str, topic: str, **config: Any) -> KafkaArrivals:
    return KafkaArrivals(f"kafka://{address}/{topic}", schema(), KafkaConfig(patience=2, **config))


def test_each_partition_goes_on_after_its_place_within_a_message_too(ray_here: None, address: str) -> None:
    publish(address, "parts", as_json(row(1), row(2)), as_json(row(3)))
    publish(address, "parts", as_json(row(4)), partition=2)
    topic = arrivals(address, "parts")
    first, second = topic.read({}, set())
    assert first.rows["ts"].to_pylist() == [1000, 2000, 3000] and first.origin == "parts/0"
    assert second.rows["ts"].to_pylist() == [4000] and second.origin == "parts/2"
    assert topic.waiting({}, set()) == 3 and topic.waiting({"parts/0": first.stop}, set()) == 1
    (again,) = topic.read({"parts/0": 1, "parts/2": second.stop}, set())
    assert again.rows["ts"].to_pylist() == [2000, 3000] and again.start == 1
    assert list(topic.read({"parts/0": first.stop, "parts/2": second.stop}, set())) == []


def test_a_look_is_bounded(ray_here: None, address: str) -> None:
    publish(address, "many", *(as_json(row(n)) for n in range(10)))
    (found,) = arrivals(address, "many", look_messages=4).read({}, set())
    assert found.rows.num_rows == 4 and found.stop == 4 * MESSAGE_ROWS


def test_partitions_are_taken_in_order_of_time(ray_here: None, address: str) -> None:
    """A backlog of one partition does not make the rows of another late."""
    for number in range(12):
        publish(address, "several", as_json(row(number)), partition=number % 2 * 3, ms=1_000_000 + number)
    topic, seen, after = arrivals(address, "several", look_messages=2), [], {}
    while pieces := list(topic.read(after, set())):
        for found in pieces:
            seen += found.rows["ts"].to_pylist()
            after[found.origin] = found.stop
        assert abs(after.get("several/0", 0) - after.get("several/3", 0)) <= 2 * MESSAGE_ROWS
    assert sorted(seen) == [1000 * number for number in range(12)]


def test_offsets_without_messages_are_neither_passed_over_nor_waited_for(
    ray_here: None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(address, "gap", *(as_json(row(n)) for n in range(6)))
    topic, asked = arrivals(address, "gap", look_messages=2), []

    def read_kafka(ranges: dict[int, Any]) -> dict[int, list[Fetched]]:
        """Offsets 0 to 3 hold nothing."""
        asked.append(tuple(ranges[0]))
        there = range(max(4, ranges[0].start), ranges[0].stop)
        return {0: [Fetched(1, 0, Message(n, as_json(row(n)))) for n in there]}

    monkeypatch.setattr(topic, "_read_kafka", read_kafka)
    looks = [[found.rows["ts"].to_pylist() for found in topic.read({}, set())] for _ in range(3)]
    assert asked == [(0, 2), (0, 4), (0, 6)] and looks == [[], [], [[4000, 5000]]]


def test_a_broker_that_is_gone_for_a_while_is_waited_for(
    ray_here: None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(address, "away", as_json(row(1)))
    topic = arrivals(address, "away", outage=60)

    def fails(ranges: Any) -> Any:
        raise RuntimeError("timed out")

    with monkeypatch.context() as away:
        away.setattr(topic, "_read_kafka", fails)
        assert list(topic.read({}, set())) == []
    (found,) = topic.read({}, set())
    assert found.rows["ts"].to_pylist() == [1000]
    gone = arrivals("127.0.0.1:9", "any", outage=0)
    monkeypatch.setattr("actors.kafka.ANSWER_S", 0.5)
    assert gone.waiting({}, set()) is None


def test_lost_messages_stop_the_stream_unless_they_are_skipped(ray_here: None, address: str) -> None:
    publish(address, "anew", as_json(row(1)))
    topic = arrivals(address, "anew")
    with pytest.raises(DataError, match="anew/0 holds offsets 0 to 1, but 7 comes next"):
        list(topic.read({"anew/0": 7 * MESSAGE_ROWS}, set()))
    assert topic.skip_lost({"anew/0": 7 * MESSAGE_ROWS}) == {"anew/0": 0}
    assert topic.skip_lost({"anew/0": MESSAGE_ROWS}) == {}


def test_sources_and_settings_that_cannot_be(address: str, tmp_path: Path) -> None:
    for url in ("kafka://broker/clicks", "kafka://broker:9092", "kafka://broker:9092/"):
        with pytest.raises(ConfigError, match="a topic is given as"):
            KafkaArrivals(url, schema(), KafkaConfig())
    (tmp_path / "client.yaml").write_text("no.such.setting: 1")
    with pytest.raises(ConfigError, match=r"no\.such\.setting"):
        arrivals(address, "any", consumer=str(tmp_path / "client.yaml"))
    side = {"files": "users.csv", "on": "user"}
    with pytest.raises(ConfigError, match="joins side tables"):
        KafkaArrivals(f"kafka://{address}/any", schema(join=[side]), KafkaConfig())
    with pytest.raises(DataError, match="does not answer"):
        list(arrivals("127.0.0.1:9", "any", outage=0).read({}, set()))


def test_a_topic_becomes_memories_and_goes_on_after_what_is_committed(
    ray_here: None, address: str, tmp_path: Path
) -> None:
    log = write_log(tmp_path).slice(0, 1200)
    values = [as_arrow(*log.slice(start, 60).to_pylist()) for start in range(0, 1200, 60)]
    for number, value in enumerate(values):
        publish(address, "log", value, partition=number % 3)
    plain = yaml.safe_load((tmp_path / "schema.yaml").read_text())
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump({**plain, "malformed": "error"}))
    asked = Stream(
        dataset=str(tmp_path / "schema.yaml"),
        source=f"kafka://{address}/log",
        run=str(tmp_path / "run"),
        until_idle=0.5,
        poll=0.05,
        kafka=KafkaConfig(format="arrow", patience=2),
        stream=StreamConfig(block_rows=500, min_rows=2, keep_last=2, lateness=1e9),
        settings=Recipe.model_validate(TINY.model_dump()),
    )
    run = stream(asked)
    assert [record.metrics.block_rows for record in run.records] == [500, 500, 200]
    assert sorted(events(tmp_path / "run")) == sorted(log["event"].to_pylist())
    assert run.records[0].metrics.stream.taken[0] == ("log/0", 0, 7 * MESSAGE_ROWS, False)
    publish(address, "log", values[0], as_arrow(row(1)), partition=3)
    with pytest.raises(DataError, match="log/3, offset 1 cannot be read: it has no column"):
        stream(asked)

"""A topic of Kafka as what arrives at a stream, read by Ray Data from offset to offset.

Offsets are kept in the commit records of the stream alone: nothing is committed to the broker.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import ray
import yaml
from pydantic import Field

from actors.preparing import quiet_data
from diet_ray.errors import ConfigError, DataError
from diet_ray.log.arriving import Piece, behind
from diet_ray.log.messages import MESSAGE_ROWS, Coding, Message, messages_piece
from diet_ray.log.schema import LogSchema
from diet_ray.strict import Strict

SCHEME = "kafka://"
ANSWER_S = 10.0  # for the broker to say what it has


class KafkaConfig(Strict):
    """How messages of a topic are read."""

    format: Coding = "json"  # a JSON object (or a list of them), or an Arrow IPC stream, per message
    consumer: str | None = None  # YAML file of librdkafka's settings, for security.protocol and the like
    look_messages: Annotated[int, Field(ge=1)] = 50_000  # read at most per partition and look
    # Seconds after which a read ends where offsets at the end hold no message (transactions leave such).
    patience: Annotated[float, Field(gt=0)] = 10.0
    outage: Annotated[float, Field(ge=0)] = 600.0  # seconds without an answer of the broker that are waited


class Range(NamedTuple):
    """Offsets [start, stop) of a partition."""

    start: int
    stop: int


class KafkaArrivals:
    """Messages of a topic: those of a partition in order, partitions one after another."""

    def __init__(self, url: str, schema: LogSchema, config: KafkaConfig) -> None:
        """url: kafka://host:port[,host:port]/topic. Raises ConfigError where it is another, or no client."""
        servers, _, self.topic = url.removeprefix(SCHEME).partition("/")
        self.servers = servers.split(",")
        if not self.topic or not all(":" in server for server in self.servers):
            raise ConfigError(f"--source {url}: a topic is given as kafka://host:port[,host:port]/topic")
        if schema.join:
            raise ConfigError(f"schema {schema.name} joins side tables, which a topic does not have")
        self.schema, self.config = schema, config
        self.settings = _settings(config.consumer)
        self.told, self.answered = f"Kafka at {servers}, topic {self.topic},", time.monotonic()
        self.empty: dict[int, int] = {}  # partition -> end of a range in which no message was found
        self.broker = _consumer({**self.settings, "bootstrap.servers": servers, "group.id": "diet-ray"})
        quiet_data()
        logging.getLogger("ray.data._internal.datasource.kafka_datasource").setLevel(logging.ERROR)

    def read(self, after: Mapping[str, int], over: Set[str]) -> Iterator[Piece]:
        # Partitions that are not named would be read from their beginning: all are.
        ranges = {
            partition: span._replace(stop=min(span.stop, span.start + self.config.look_messages))
            for partition, span in self._unread(after).items()
        }
        wanted = {p: span for p, span in ranges.items() if span.stop > max(span.start, self.empty.get(p, 0))}
        if not wanted:
            return
        found = self._fetch(ranges)
        for partition, span in wanted.items():
            messages = found.get(partition, [])
            if not messages:
                self.empty[partition] = span.stop
                continue
            origin = self._origin(partition)
            start, stop = (
                after.get(origin, span.start * MESSAGE_ROWS),
                (messages[-1].offset + 1) * MESSAGE_ROWS,
            )
            piece = messages_piece(origin, start, stop, messages, self.config.format, self.schema)
            yield behind(piece, start)  # a block may have taken a message in part

    def waiting(self, after: Mapping[str, int], over: Set[str]) -> int:
        return sum(
            max(0, span.stop - max(span.start, after.get(self._origin(partition), 0) // MESSAGE_ROWS))
            for partition, span in self._held().items()
        )

    def skip_lost(self, after: Mapping[str, int]) -> dict[str, int]:
        lost = {}
        for partition, held in self._held().items():
            origin = self._origin(partition)
            if origin in after and not held.start <= after[origin] // MESSAGE_ROWS <= held.stop:
                lost[origin] = held.start * MESSAGE_ROWS
        return lost

    def _origin(self, partition: int) -> str:
        return f"{self.topic}/{partition}"

    def _held(self) -> dict[int, Range]:
        """What the broker has of each partition; nothing while it does not answer.

        Raises DataError where it has not answered for too long or has no such topic.
        """
        from confluent_kafka import KafkaException, TopicPartition

        try:
            topic = self.broker.list_topics(self.topic, timeout=ANSWER_S).topics[self.topic]
            if topic.error is not None or not topic.partitions:
                raise DataError(f"{self.told} has no such topic: {topic.error or 'no partition'}")
            held = {}
            for partition in sorted(topic.partitions):
                asked = TopicPartition(self.topic, partition)
                held[partition] = Range(*self.broker.get_watermark_offsets(asked, timeout=ANSWER_S))
        except KafkaException as failed:
            if time.monotonic() - self.answered > self.config.outage:
                raise DataError(f"{self.told} does not answer: {failed}") from failed
            return {}
        self.answered = time.monotonic()
        return held

    def _unread(self, after: Mapping[str, int]) -> dict[int, Range]:
        """Raises DataError where messages that were not read are gone."""
        unread = {}
        for partition, held in self._held().items():
            origin = self._origin(partition)
            start = after[origin] // MESSAGE_ROWS if origin in after else held.start
            if not held.start <= start <= held.stop:
                raise DataError(
                    f"{origin} holds offsets {held.start:,} to {held.stop:,}, but {start:,} comes next: "
                    "messages are lost, or the topic was made anew. Everything committed stands; "
                    "--skip-block goes on with what there is"
                )
            unread[partition] = Range(start, held.stop)
        return unread

    def _fetch(self, ranges: dict[int, Range]) -> dict[int, list[Message]]:
        starts: dict[int, int | str] = {partition: span.start for partition, span in ranges.items()}
        stops: dict[int, int | str] = {partition: span.stop for partition, span in ranges.items()}
        rows = ray.data.read_kafka(
            self.topic,
            bootstrap_servers=self.servers,
            start_offset={self.topic: starts},
            end_offset={self.topic: stops},
            consumer_config=self.settings or None,
            timeout_ms=round(self.config.patience * 1000),
        ).select_columns(["partition", "offset", "value"])
        found: dict[int, list[Message]] = {}
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            columns = (batch[name].to_pylist() for name in ("partition", "offset", "value"))
            for partition, offset, value in zip(*columns, strict=True):
                found.setdefault(partition, []).append(Message(offset, value))
        return {partition: sorted(messages) for partition, messages in found.items()}


def _settings(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as wrong:
        raise ConfigError(f"--kafka.consumer {path}: {wrong}") from wrong
    if not isinstance(found, dict):
        raise ConfigError(f"--kafka.consumer {path} is not a mapping of librdkafka's settings")
    return found


def _consumer(settings: dict[str, Any]) -> Any:
    try:
        from confluent_kafka import Consumer, KafkaException
    except ImportError as missing:
        raise ConfigError(f"a topic needs a client: pip install 'diet-ray[kafka]' ({missing})") from missing
    try:
        return Consumer(settings, logger=logging.getLogger("confluent_kafka"))
    except KafkaException as wrong:
        raise ConfigError(f"--kafka.consumer: {wrong}") from wrong

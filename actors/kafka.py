"""A topic of Kafka as what arrives at a stream, read by Ray Data from offset to offset.

Offsets are kept in the commit records of the stream alone: nothing is committed to the broker.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import yaml

from actors.data import quiet_data
from diet_ray.errors import ConfigError, DataError
from diet_ray.log.schema import LogSchema
from diet_ray.log.stream.arrivals import Piece
from diet_ray.log.stream.config import KafkaConfig
from diet_ray.log.stream.messages import MESSAGE_ROWS, Message, message_pieces
from diet_ray.log.stream.partitions import Fetched, PartitionBuffer, Range

SCHEME = "kafka://"
ANSWER_S = 10.0  # for the broker to answer


class KafkaArrivals:
    """Messages of a topic: in order within a partition, about in order of time over several.

    Args:
        url: kafka://host:port[,host:port]/topic.
        schema: of the rows.
        config: how messages are read.

    Raises:
        ConfigError: where the URL is of another form, or no client is installed.
    """

    def __init__(self, url: str, schema: LogSchema, config: KafkaConfig) -> None:
        servers, _, self.topic = url.removeprefix(SCHEME).partition("/")
        self.servers = servers.split(",")
        if not self.topic or not all(":" in server for server in self.servers):
            raise ConfigError(f"--source {url}: a topic is given as kafka://host:port[,host:port]/topic")
        if schema.join:
            raise ConfigError(f"schema {schema.name} joins side tables, which a topic does not have")
        self.schema, self.config = schema, config
        self.settings = _settings(config.consumer)
        self.label = f"Kafka at {servers}, topic {self.topic},"
        self.failing_since: float | None = None
        self.buffer = PartitionBuffer()
        self.broker = _consumer({**self.settings, "bootstrap.servers": servers, "group.id": "diet-ray"})
        quiet_data()
        logging.getLogger("ray.data._internal.datasource.kafka_datasource").setLevel(logging.ERROR)

    def read(self, after: Mapping[str, int], exhausted: Set[str]) -> Iterator[Piece]:
        unread = self._unread(after, self._available())
        self.buffer.drop_taken(unread)
        if self.buffer.needs_fetch(unread):
            self._fetch(unread)
        for taken in self.buffer.slices(unread):
            for partition, messages in taken.items():
                origin = self._origin(partition)
                start = after.get(origin, messages[0].offset * MESSAGE_ROWS)
                yield from message_pieces(origin, start, messages, self.config.format, self.schema)

    def waiting(self, after: Mapping[str, int], exhausted: Set[str]) -> int | None:
        try:
            available = self._available()
        except DataError:
            available = {}  # `read` reports it, when the stream wants rows
        if not available:
            return None
        return sum(
            max(0, span.stop - max(span.start, self._next_offset(partition, span, after)))
            for partition, span in available.items()
        )

    def skip_lost(self, after: Mapping[str, int]) -> dict[str, int]:
        return {
            self._origin(partition): span.start * MESSAGE_ROWS
            for partition, span in self._available().items()
            if not span.can_resume_at(self._next_offset(partition, span, after))
        }

    def _origin(self, partition: int) -> str:
        return f"{self.topic}/{partition}"

    def _next_offset(self, partition: int, span: Range, after: Mapping[str, int]) -> int:
        """The offset at which reading resumes."""
        origin = self._origin(partition)
        return after[origin] // MESSAGE_ROWS if origin in after else span.start

    def _available(self) -> dict[int, Range]:
        """What the broker has of each partition; nothing while it does not answer.

        Raises DataError where it has not answered for too long or has no such topic.
        """
        from confluent_kafka import KafkaException, TopicPartition

        try:
            topic = self.broker.list_topics(self.topic, timeout=ANSWER_S).topics[self.topic]
            if topic.error is not None or not topic.partitions:
                return self._wait(f"{self.label} is unavailable: {topic.error or 'no partition'}")
            available = {}
            for number in sorted(topic.partitions):
                partition = TopicPartition(self.topic, number)
                available[number] = Range(*self.broker.get_watermark_offsets(partition, timeout=ANSWER_S))
        except KafkaException as failed:
            return self._wait(f"{self.label} does not answer: {failed}")
        self.failing_since = None
        return available

    def _wait(self, reason: str) -> dict[int, Range]:
        self.failing_since = self.failing_since or time.monotonic()
        if time.monotonic() - self.failing_since > self.config.outage:
            raise DataError(reason)
        return {}

    def _unread(self, after: Mapping[str, int], available: dict[int, Range]) -> dict[int, Range]:
        """Raises DataError where messages that were not read have been removed."""
        unread = {}
        for partition, span in available.items():
            start = self._next_offset(partition, span, after)
            if not span.can_resume_at(start):
                raise DataError(
                    f"{self._origin(partition)} holds offsets {span.start:,} to {span.stop:,}, "
                    f"but {start:,} comes next: messages are lost, or the topic was recreated. "
                    "Committed stages are kept; --skip-block continues with what there is"
                )
            unread[partition] = Range(start, span.stop)
        return unread

    def _fetch(self, unread: dict[int, Range]) -> None:
        """Read on in every partition whose messages have all been taken."""
        ranges = self.buffer.ranges_to_fetch(unread, self.config.look_messages)
        try:
            messages = self._read_kafka(ranges)
        except Exception as failed:  # of Ray or of the client, in a task
            self._wait(f"{self.label} cannot be read: {failed}")
            return
        # Messages that retention removes meanwhile are left out silently: check once more what there is.
        resumed = {self._origin(p): r.start * MESSAGE_ROWS for p, r in ranges.items() if r.stop > r.start}
        self._unread(resumed, self._available())
        self.buffer.add(ranges, messages)

    def _read_kafka(self, ranges: dict[int, Range]) -> dict[int, list[Fetched]]:
        # All partitions are named: those that are not would be read from their beginning.
        starts: dict[int, int | str] = {partition: span.start for partition, span in ranges.items()}
        stops: dict[int, int | str] = {partition: span.stop for partition, span in ranges.items()}
        columns = ["partition", "offset", "value", "timestamp"]
        rows = ray.data.read_kafka(
            self.topic,
            bootstrap_servers=self.servers,
            start_offset={self.topic: starts},
            end_offset={self.topic: stops},
            consumer_config=self.settings or None,
            timeout_ms=round(self.config.patience * 1000),
        ).select_columns(columns)
        messages: dict[int, list[Fetched]] = {}
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            for partition, offset, value, ms in zip(*(batch[c].to_pylist() for c in columns), strict=True):
                messages.setdefault(partition, []).append(Fetched(ms, partition, Message(offset, value)))
        return messages


def _settings(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as wrong:
        raise ConfigError(f"--kafka.consumer {path}: {wrong}") from wrong
    if not isinstance(settings, dict):
        raise ConfigError(f"--kafka.consumer {path} is not a mapping of librdkafka settings")
    return settings


def _consumer(settings: dict[str, Any]) -> Any:
    try:
        from confluent_kafka import Consumer, KafkaException
    except ImportError as missing:
        raise ConfigError(f"a topic needs a client: pip install 'diet-ray[kafka]' ({missing})") from missing
    try:
        return Consumer(settings, logger=logging.getLogger("confluent_kafka"))
    except KafkaException as wrong:
        raise ConfigError(f"--kafka.consumer: {wrong}") from wrong

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

from actors.data import quiet_data
from diet_ray.errors import ConfigError, DataError
from diet_ray.log.schema import LogSchema
from diet_ray.log.stream.arrivals import Piece
from diet_ray.log.stream.messages import MESSAGE_ROWS, Coding, Message, message_pieces
from diet_ray.strict import Strict

SCHEME = "kafka://"
ANSWER_S = 10.0  # for the broker to say what it has
# Taken together: within a slice partitions follow one another.
SLICE_MESSAGES, SLICE_BYTES = 2_000, 4 << 20
RETRY_S = 60.0  # until a range in which no message was found is read again


class KafkaConfig(Strict):
    """How messages of a topic are read."""

    format: Coding = "json"
    """Content of a message: json, an object or a list of them; arrow, an Arrow IPC stream."""
    consumer: str | None = None
    """YAML file of librdkafka's settings, such as security.protocol."""
    look_messages: Annotated[int, Field(ge=1)] = 10_000
    """Most messages per partition that one read fetches and keeps in memory."""
    patience: Annotated[float, Field(gt=0)] = 10.0
    """Seconds without a message after which a read ends: a transaction leaves offsets that have none."""
    outage: Annotated[float, Field(ge=0)] = 600.0
    """Seconds that a broker may not answer before the stream stops."""


class Range(NamedTuple):
    """Offsets [start, stop) of a partition."""

    start: int
    stop: int

    def may_go_on_at(self, offset: int) -> bool:
        """Whether no message from `offset` on is gone; at `stop` the next one will be."""
        return self.start <= offset <= self.stop


class Fetched(NamedTuple):
    """A message that waits to be taken; in the order in which messages of several partitions are."""

    ms: int  # its time, as the producer or the broker has set it
    partition: int
    message: Message


class Empty(NamedTuple):
    """A read that found no message up to an offset: there may be none, or the broker was slow."""

    stop: int
    at: float  # time.monotonic()


class KafkaArrivals:
    """Messages of a topic: those of a partition in their order, those of several about in order of time."""

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
        self.told = f"Kafka at {servers}, topic {self.topic},"
        self.failing: float | None = None  # since when the broker does not answer
        self.fetched: dict[int, list[Fetched]] = {}  # by partition, in order of offset
        self.empty: dict[int, Empty] = {}  # by partition, the last read that found nothing
        self.broker = _consumer({**self.settings, "bootstrap.servers": servers, "group.id": "diet-ray"})
        quiet_data()
        logging.getLogger("ray.data._internal.datasource.kafka_datasource").setLevel(logging.ERROR)

    def read(self, after: Mapping[str, int], over: Set[str]) -> Iterator[Piece]:
        spans = self._unread(after, self._held())
        for partition, span in spans.items():
            own = self.fetched.get(partition, [])
            self.fetched[partition] = [each for each in own if each.message.offset >= span.start]
        if any(self._lacking(partition, span) for partition, span in spans.items()):
            self._fetch(spans)
        for taken in _slices(self._in_order_of_time(spans)):
            for partition in sorted({each.partition for each in taken}):
                messages = [each.message for each in taken if each.partition == partition]
                origin = self._origin(partition)
                start = after.get(origin, messages[0].offset * MESSAGE_ROWS)
                yield from message_pieces(origin, start, messages, self.config.format, self.schema)

    def waiting(self, after: Mapping[str, int], over: Set[str]) -> int | None:
        try:
            held = self._held()
        except DataError:
            held = {}  # `read` says so, when the stream asks for rows
        if not held:
            return None
        return sum(
            max(0, span.stop - max(span.start, self._comes_next(partition, span, after)))
            for partition, span in held.items()
        )

    def skip_lost(self, after: Mapping[str, int]) -> dict[str, int]:
        return {
            self._origin(partition): held.start * MESSAGE_ROWS
            for partition, held in self._held().items()
            if not held.may_go_on_at(self._comes_next(partition, held, after))
        }

    def _origin(self, partition: int) -> str:
        return f"{self.topic}/{partition}"

    def _comes_next(self, partition: int, held: Range, after: Mapping[str, int]) -> int:
        """The offset at which reading goes on."""
        origin = self._origin(partition)
        return after[origin] // MESSAGE_ROWS if origin in after else held.start

    def _in_order_of_time(self, spans: dict[int, Range]) -> list[Fetched]:
        """What may be taken now: nothing earlier is left unread in a partition that has more."""
        if any(self._lacking(partition, span) for partition, span in spans.items()):
            return []
        ends = [self.fetched[p][-1].ms for p, span in spans.items() if self._to_read(p, span)]
        frontier = min(ends, default=None)
        running: list[Fetched] = []
        for own in self.fetched.values():
            latest = 0
            for each in own:  # a message is not taken before the one before it
                latest = max(latest, each.ms)
                if frontier is None or latest <= frontier:
                    running.append(each._replace(ms=latest))
        return sorted(running)

    def _lacking(self, partition: int, span: Range) -> bool:
        return not self.fetched[partition] and self._to_read(partition, span)

    def _to_read(self, partition: int, span: Range) -> bool:
        """Whether the broker seems to have messages behind those that were fetched."""
        empty = self.empty.get(partition)
        found_none = empty and empty.stop >= span.stop and time.monotonic() < empty.at + RETRY_S
        return self._next(partition, span) < span.stop and not found_none

    def _next(self, partition: int, span: Range) -> int:
        own = self.fetched[partition]
        return own[-1].message.offset + 1 if own else span.start

    def _held(self) -> dict[int, Range]:
        """What the broker has of each partition; nothing while it does not answer.

        Raises DataError where it has not answered for too long or has no such topic.
        """
        from confluent_kafka import KafkaException, TopicPartition

        try:
            topic = self.broker.list_topics(self.topic, timeout=ANSWER_S).topics[self.topic]
            if topic.error is not None or not topic.partitions:
                return self._wait(f"{self.told} is not to be had: {topic.error or 'no partition'}")
            held = {}
            for partition in sorted(topic.partitions):
                asked = TopicPartition(self.topic, partition)
                held[partition] = Range(*self.broker.get_watermark_offsets(asked, timeout=ANSWER_S))
        except KafkaException as failed:
            return self._wait(f"{self.told} does not answer: {failed}")
        self.failing = None
        return held

    def _wait(self, why: str) -> dict[int, Range]:
        self.failing = self.failing or time.monotonic()
        if time.monotonic() - self.failing > self.config.outage:
            raise DataError(why)
        return {}

    def _unread(self, after: Mapping[str, int], held: dict[int, Range]) -> dict[int, Range]:
        """Raises DataError where messages that were not read are gone."""
        unread = {}
        for partition, span in held.items():
            start = self._comes_next(partition, span, after)
            if not span.may_go_on_at(start):
                raise DataError(
                    f"{self._origin(partition)} holds offsets {span.start:,} to {span.stop:,}, "
                    f"but {start:,} comes next: messages are lost, or the topic was made anew. "
                    "Everything committed stands; --skip-block goes on with what there is"
                )
            unread[partition] = Range(start, span.stop)
        return unread

    def _fetch(self, spans: dict[int, Range]) -> None:
        """Read on in every partition whose messages have all been taken."""
        ranges = {}
        for partition, span in spans.items():
            start = stop = self._next(partition, span)
            if self._lacking(partition, span):
                # Offsets that held no message are not passed over: a slow broker looks the same.
                known = self.empty.get(partition, Empty(0, 0)).stop
                stop = min(span.stop, max(start, known) + self.config.look_messages)
            # All partitions are named: those that are not would be read from their beginning.
            ranges[partition] = Range(start, stop)
        try:
            found = self._read_kafka(ranges)
        except Exception as failed:  # of Ray or of the client, in a task
            self._wait(f"{self.told} cannot be read: {failed}")
            return
        # What retention removes meanwhile is left out without a word: ask once more what there is.
        asked = {self._origin(p): r.start * MESSAGE_ROWS for p, r in ranges.items() if r.stop > r.start}
        self._unread(asked, self._held())
        for partition, span in ranges.items():
            own = sorted(found.get(partition, []), key=lambda each: each.message.offset)
            self.fetched[partition] += own
            if not own and span.stop > span.start:
                self.empty[partition] = Empty(span.stop, time.monotonic())

    def _read_kafka(self, ranges: dict[int, Range]) -> dict[int, list[Fetched]]:
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
        found: dict[int, list[Fetched]] = {}
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            for partition, offset, value, ms in zip(*(batch[c].to_pylist() for c in columns), strict=True):
                found.setdefault(partition, []).append(Fetched(ms, partition, Message(offset, value)))
        return found


def _slices(messages: list[Fetched]) -> Iterator[list[Fetched]]:
    taken: list[Fetched] = []
    size = 0
    for each in messages:
        taken.append(each)
        size += len(each.message.value or b"")
        if len(taken) >= SLICE_MESSAGES or size >= SLICE_BYTES:
            yield taken
            taken, size = [], 0
    if taken:
        yield taken


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

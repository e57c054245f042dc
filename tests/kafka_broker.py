"""A broker for tests: librdkafka's mock cluster, which speaks Kafka's protocol over TCP."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

HELD_BYTES = 5 << 20  # of a partition; the mock broker forgets what is older


@contextmanager
def broker() -> Iterator[str]:
    """host:port of a broker that lives as long as the context."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdin
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def publish(address: str, topic: str, *values: bytes | None, partition: int = 0, ms: int = 0) -> None:
    """ms: the time of the messages; 0: now."""
    producer = Producer({"bootstrap.servers": address})
    for value in values:
        producer.produce(topic, value, partition=partition, timestamp=ms)
    assert producer.flush(30) == 0


def serve() -> None:
    holder = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1})
    (found,) = holder.list_topics(timeout=10).brokers.values()
    print(f"{found.host}:{found.port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve()

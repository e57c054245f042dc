"""Messages of several partitions of a topic, put into the order of time; what to fetch next.

Within a partition messages keep their order. Of several partitions no message is taken while an earlier one
may still be unread in another, so a backlog of one partition does not make the rows of another late.
"""

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from diet_ray.log.stream.messages import Message

# Taken together: within a slice partitions follow one another.
SLICE_MESSAGES, SLICE_BYTES = 2_000, 4 << 20
RETRY_S = 60.0  # until a range in which no message was found is read again


class Range(NamedTuple):
    """Offsets [start, stop) of a partition."""

    start: int
    stop: int

    def can_resume_at(self, offset: int) -> bool:
        """Whether no message from `offset` on has been removed; at `stop` the next one will be."""
        return self.start <= offset <= self.stop


class Fetched(NamedTuple):
    """A message that waits to be taken; sorts as messages of several partitions are taken."""

    ms: int  # its time, as the producer or the broker has set it
    partition: int
    message: Message


class Empty(NamedTuple):
    """A read that returned no message up to an offset: there may be none, or the broker was slow."""

    stop: int
    at: float  # time.monotonic()


class PartitionBuffer:
    """Fetched messages by partition, in order of offset, and reads that returned none."""

    def __init__(self) -> None:
        self.fetched: dict[int, list[Fetched]] = {}
        self.empty: dict[int, Empty] = {}

    def drop_taken(self, unread: Mapping[int, Range]) -> None:
        """Forget messages before the unread ranges."""
        for partition, span in unread.items():
            messages = self.fetched.get(partition, [])
            self.fetched[partition] = [each for each in messages if each.message.offset >= span.start]

    def needs_fetch(self, unread: Mapping[int, Range]) -> bool:
        """Whether a partition has unread messages of which none is here."""
        return any(self._starved(partition, span) for partition, span in unread.items())

    def ranges_to_fetch(self, unread: Mapping[int, Range], look: int) -> dict[int, Range]:
        """What to read next, at most `look` messages of a partition; an empty range where it has enough."""
        ranges = {}
        for partition, span in unread.items():
            start = stop = self._next_offset(partition, span)
            if self._starved(partition, span):
                # Offsets that held no message are not passed over: a slow broker looks the same.
                empty_until = self.empty.get(partition, Empty(0, 0)).stop
                stop = min(span.stop, max(start, empty_until) + look)
            ranges[partition] = Range(start, stop)
        return ranges

    def add(self, ranges: Mapping[int, Range], messages: Mapping[int, list[Fetched]]) -> None:
        """Take in what a read of `ranges` returned."""
        for partition, span in ranges.items():
            own = sorted(messages.get(partition, []), key=lambda each: each.message.offset)
            self.fetched[partition] += own
            if not own and span.stop > span.start:
                self.empty[partition] = Empty(span.stop, time.monotonic())

    def slices(self, unread: Mapping[int, Range]) -> Iterator[dict[int, list[Message]]]:
        """Messages that may be taken now, by partition, a slice of time after another."""
        for taken in _slices(self._in_order_of_time(unread)):
            partitions = sorted({each.partition for each in taken})
            yield {p: [each.message for each in taken if each.partition == p] for p in partitions}

    def _in_order_of_time(self, unread: Mapping[int, Range]) -> list[Fetched]:
        if self.needs_fetch(unread):
            return []
        ends = [self.fetched[p][-1].ms for p, span in unread.items() if self._has_more(p, span)]
        frontier = min(ends, default=None)
        ready: list[Fetched] = []
        for messages in self.fetched.values():
            latest = 0
            for each in messages:  # a message is not taken before the one before it
                latest = max(latest, each.ms)
                if frontier is None or latest <= frontier:
                    ready.append(each._replace(ms=latest))
        return sorted(ready)

    def _starved(self, partition: int, span: Range) -> bool:
        return not self.fetched[partition] and self._has_more(partition, span)

    def _has_more(self, partition: int, span: Range) -> bool:
        """Whether the broker seems to have messages behind those that were fetched."""
        empty = self.empty.get(partition)
        recently_empty = empty and empty.stop >= span.stop and time.monotonic() < empty.at + RETRY_S
        return self._next_offset(partition, span) < span.stop and not recently_empty

    def _next_offset(self, partition: int, span: Range) -> int:
        messages = self.fetched[partition]
        return messages[-1].message.offset + 1 if messages else span.start


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

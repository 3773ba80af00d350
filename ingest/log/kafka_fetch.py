"""Single messages by their place, and where topics end: the reads of `KafkaLog` that follow no order.

A consumer for each topic, opened on first use and kept: it is sought to the place, reads ahead a little, and what it
read is remembered, so that neighbours of a place cost nothing. One for several topics would be slow: kafka-python looks
at the cluster anew whenever the topics of a consumer change (100 ms), and one that pauses partitions and resumes them
in turn stands still for good now and then.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from kafka import TopicPartition
from kafka.errors import OffsetOutOfRangeError

from infra.errors import LogError
from infra.lifecycle import Deadline
from ingest.log.kafka_clients import CLOSE_S, KafkaClients, border, message_of, partitions_of
from ingest.log.protocol import Message

_AHEAD = 64  # messages read at once, the one asked for included
_AHEAD_BYTES = 256 << 10  # what a broker sends for it; one record of any size at least
_HELD_BYTES = 32 << 20  # values remembered
_SOON_MS = 50  # a record that is there is given within this; else the end is looked at
_SETTINGS = {
    "auto_offset_reset": "none",  # an offset that is not there is an answer
    "max_partition_fetch_bytes": _AHEAD_BYTES,
    "fetch_max_wait_ms": 10,  # of a fetch at the end, behind which the next one waits
    "retry_backoff_ms": 5,  # a seek takes effect after this, at the latest
    "enable_incremental_fetch_sessions": False,  # made for going on where one was; three times slower here
}

_ENDS = ""  # name of the consumer that looks at ends: it reads no topic

Place = tuple[str, int, int]


class KafkaFetcher:
    """Reads by place. Safe for use from several threads, one at a time; holds a connection once it was used."""

    def __init__(self, clients: KafkaClients) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._consumers: dict[str, Any] = {}
        self._held = _Held(_HELD_BYTES)

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        """The message at a place; `None` where nothing is. Raises `LogError`, after `log.timeout_s`."""
        place, part = (topic, partition, offset), TopicPartition(topic, partition)
        with self._lock:
            found = self._held.get(place)
            if found is None and offset >= 0:
                what = f"fetch of {topic}/{partition}@{offset}"
                self._held.add(self._asked(topic, what, self._read, part, offset))
                found = self._held.get(place)
        return found

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> offset of the next message. Raises `LogError`."""
        with self._lock:
            found: dict[int, int] = self._asked(_ENDS, f"ends of {topic}", self._ends, topic)
        return found

    def _asked(self, name: str, what: str, ask: Any, *about: Any) -> Any:
        """What `ask` returns of consumer `name` and `about`. After an error the consumer is not used again."""
        if name not in self._consumers:
            self._consumers[name] = self._clients.consumer(None, **_SETTINGS)
        try:
            with border(what):
                return ask(self._consumers[name], *about)
        except LogError:
            self._forget(name)
            raise

    def _ends(self, consumer: Any, topic: str) -> dict[int, int]:
        ends = consumer.end_offsets(partitions_of(consumer, topic), timeout_ms=self._clients.timeout_ms)
        return {part.partition: end for part, end in ends.items()}

    def _read(self, consumer: Any, part: Any, offset: int) -> list[Message]:
        """Messages of a partition from `offset` on, `_AHEAD` at most; none where there is none at `offset`."""
        if part not in partitions_of(consumer, part.topic):
            return []
        consumer.assign([part])
        consumer.seek(part, offset)
        until = Deadline.after(self._clients.config.timeout_s)
        while True:
            try:
                polled = consumer.poll(timeout_ms=_SOON_MS, max_records=_AHEAD)
            except OffsetOutOfRangeError:
                return []
            if polled:
                return [message_of(record) for record in polled[part]]
            at = consumer.position(part, timeout_ms=self._clients.timeout_ms)
            end = consumer.end_offsets([part], timeout_ms=self._clients.timeout_ms)[part]
            if (at or 0) > offset or end <= offset:  # a place that holds no record, or one to come
                return []
            if until.passed():
                raise LogError(
                    f"event log: {part.topic}/{part.partition}@{offset}: got nothing from "
                    f"{self._clients.config.brokers} for {self._clients.waited}"
                )

    def _forget(self, name: str) -> None:
        self._consumers.pop(name).close(autocommit=False, timeout_ms=int(CLOSE_S * 1000))

    def close(self) -> None:
        """Let the connections go; another call opens one again."""
        with self._lock:
            for name in list(self._consumers):
                self._forget(name)


class _Held:
    """Messages by place, those used last, as many as their values have `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._messages: OrderedDict[Place, Message] = OrderedDict()
        self._limit_bytes, self._bytes = limit_bytes, 0

    def get(self, place: Place) -> Message | None:
        if place in self._messages:
            self._messages.move_to_end(place)
        return self._messages.get(place)

    def add(self, messages: Iterable[Message]) -> None:
        """Remember `messages`; the first of them is kept in any case, and longest."""
        for message in reversed(list(messages)):
            place = (message.topic, message.partition, message.offset)
            before = self._messages.pop(place, None)
            self._bytes += len(message.value) - (len(before.value) if before else 0)
            self._messages[place] = message
        while self._bytes > self._limit_bytes and len(self._messages) > 1:
            self._bytes -= len(self._messages.popitem(last=False)[1].value)

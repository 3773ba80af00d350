"""Single messages by their place: the reads of `KafkaLog` that follow no order.

A consumer for each topic, opened on first use and kept: it is sought to the place, reads ahead a little, and what it
read is remembered, so that neighbours of a place cost nothing.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.errors import LogError
from infra.lifecycle import Deadline
from ingest.log.kafka_clients import PASSING, KafkaClients, message_of
from ingest.log.kafka_places import KafkaPlaces
from ingest.log.protocol import Message

_AHEAD = 64  # messages read at once, the one asked for included
_AHEAD_BYTES = 256 << 10  # what a broker sends for it; one record of any size at least
_HELD_BYTES = 32 << 20  # values remembered
_SETTINGS = {
    "auto.offset.reset": "error",  # an offset that is not there is an answer
    "max.partition.fetch.bytes": _AHEAD_BYTES,
    "queued.min.messages": _AHEAD,
    "fetch.wait.max.ms": 10,  # of a fetch at the end, behind which the next one waits
    "fetch.error.backoff.ms": 10,
    "fetch.queue.backoff.ms": 1,  # and not a second: a fetch that was held back because enough was there
}

Place = tuple[str, int, int]


class KafkaFetcher:
    """Reads by place. Safe for use from several threads, one at a time; holds a connection once it was used."""

    def __init__(self, clients: KafkaClients, places: KafkaPlaces) -> None:
        self._clients, self._places = clients, places
        self._lock = threading.Lock()
        self._consumers: dict[str, Consumer] = {}
        self._num_partitions: dict[str, int] = {}
        self._held = _Held(_HELD_BYTES)

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        """The message at a place; `None` where nothing is. Raises `LogError`, after `log.timeout_s`."""
        with self._lock:
            found = self._held.get((topic, partition, offset))
            if found is None and offset >= 0 and self._exists(topic, partition):
                self._held.add(self._asked(TopicPartition(topic, partition, offset)))
                found = self._held.get((topic, partition, offset))
        return found

    def _exists(self, topic: str, partition: int) -> bool:
        if partition >= self._num_partitions.get(topic, 0):
            self._num_partitions[topic] = len(self._places.partitions(topic))
        return 0 <= partition < self._num_partitions[topic]

    def _asked(self, place: TopicPartition) -> list[Message]:
        """Messages of a partition from a place on. After an error the consumer is not used again."""
        topic = place.topic
        if topic not in self._consumers:
            self._consumers[topic] = self._clients.consumer(None, _SETTINGS)
        try:
            with self._clients.border(f"fetch of {topic}/{place.partition}@{place.offset}"):
                return self._read(self._consumers[topic], place)
        except LogError:
            self._forget(topic)
            raise

    def _read(self, consumer: Consumer, place: TopicPartition) -> list[Message]:
        """`_AHEAD` messages at most; none where there is none at the place."""
        consumer.assign([place])
        until = Deadline.after(self._clients.config.timeout_s)
        try:
            while told := consumer.consume(1, until.left_s()):
                error = told[0].error()
                if error is None:
                    told += consumer.consume(_AHEAD - 1, 0)
                    return [message_of(record) for record in told if record.error() is None]
                if error.code() == KafkaError._AUTO_OFFSET_RESET and _is_there(consumer, place, until.left_s()):
                    consumer.assign([place])  # said again of the place asked before, which ended the fetch of this one
                    continue
                if error.code() in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
                    return []
                if error.code() not in PASSING:
                    raise KafkaException(error)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        finally:
            consumer.unassign()

    def _forget(self, topic: str) -> None:
        self._consumers.pop(topic).close()

    def close(self) -> None:
        """Let the connections go; another call opens one again."""
        with self._lock:
            for topic in list(self._consumers):
                self._forget(topic)


def _is_there(consumer: Consumer, place: TopicPartition, timeout_s: float) -> bool:
    """Whether a place is now between the broker's oldest and newest message."""
    oldest, end = consumer.get_watermark_offsets(place, timeout_s)
    return bool(oldest <= place.offset < end)


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

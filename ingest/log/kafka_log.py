"""The event log over Kafka: `ingest.log.EventLog`, with librdkafka (confluent-kafka).

Records are sent idempotently and acknowledged by all in-sync replicas. Consumers read committed records, commit only
when told to, and begin at the oldest record. Every wait ends: where Kafka's client would try for ever in silence,
`LogError` says which broker did not answer and for how long.

A producer that failed or timed out once is stopped and replaced before anything else is sent, since whether its
records arrived is not known; the new one has a new producer id, and the caller appends again what was not
acknowledged. Records that are appended in one thread should be flushed in it: when another thread's flush fails,
it is the appending thread whose next flush says so.
"""

import logging
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from infra import broker
from infra.config import LogConfig
from infra.errors import LogError, RecordError
from infra.lifecycle import Deadline
from ingest.log import small_broker
from ingest.log.kafka_clients import MAX_RECORD_BYTES, PASSING, POLL_S, KafkaClients, message_of
from ingest.log.kafka_fetch import KafkaFetcher
from ingest.log.kafka_places import KafkaPlaces
from ingest.log.kafka_subscription import KafkaSubscription
from ingest.log.protocol import Message, Positions, TopicSpec
from ingest.records.events import Headers

_ENVELOPE_BYTES = 64 << 10  # key, headers and framing around a value
_BATCH_BYTES = 256 << 10
_LINGER_MS = 5
_WAITING_KB = 32 << 10  # not sent yet, and acknowledged ones that nobody asked after; then `append` waits
_LOOK_S = 0.1
_REPLAYED = 1000  # messages taken from the client at once

logger = logging.getLogger(__name__)


class KafkaLog:
    """An `EventLog` on the brokers of `config`. Connects on first use; `client_id` names it in the broker's logs."""

    def __init__(self, config: LogConfig, client_id: str, member: str | None = None) -> None:
        """`member` is this process's lasting name in its groups (static membership): started again under the same
        name, it has its partitions back without a rebalance. A name may be in use once at a time in a group."""
        self._config, self._member = config, member
        self._clients = KafkaClients(config, client_id)
        self._places = KafkaPlaces(self._clients)
        self._fetcher = KafkaFetcher(self._clients, self._places)
        self._lock = threading.Lock()  # the four below; never held while waiting for a broker
        self._outbox: _Outbox | None = None
        self._owed: set[int] = set()
        self._topics: set[str] = set()
        self._closed = False
        self._making = threading.Lock()  # one producer at a time: the old one has stopped before the new one sends

    def create(self, topics: Iterable[TopicSpec]) -> None:
        """Create what does not exist. Raises `LogError`."""
        specs = {spec.name: spec for spec in topics}
        self._places.create(specs.values())
        with self._lock:
            self._topics |= set(specs)

    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> "Sent":
        """Send; `flush` tells whether it arrived. An unknown topic is created with one partition.

        Raises:
            LogError: no broker takes it now; nothing was sent.
            RecordError: the record is too large, now and always. Behind a `ClaimLog` none is.
        """
        if len(value) > MAX_RECORD_BYTES - _ENVELOPE_BYTES:
            most = MAX_RECORD_BYTES - _ENVELOPE_BYTES
            raise RecordError(f"{topic}: a record may have {most} bytes on the log itself, got {len(value)}")
        if topic not in self._topics:
            self.create([TopicSpec(topic, 1, self._config.retention_s)])
        outbox, me = self._sending(), threading.get_ident()
        sent = Sent(me)
        try:
            self._produce(outbox, sent, topic, key, value, headers)
        except KafkaException as exc:
            error: KafkaError = exc.args[0]
            if error.fatal() or error.code() == KafkaError._FATAL:  # it takes nothing any more
                self._give_up(outbox, None)
            raise self._clients.failed(f"append to {topic}", error) from exc
        with self._lock:
            outbox.waiting.append(sent)
            if outbox is not self._outbox:
                self._owed.add(me)
        return sent

    def _produce(self, outbox: "_Outbox", sent: "Sent", topic: str, key: str, value: bytes, headers: Headers) -> None:
        until: Deadline | None = None
        while True:
            try:
                with outbox.open():
                    outbox.producer.produce(
                        topic, value=value, key=key.encode(), headers=list(headers.items()), on_delivery=sent.hear
                    )
                return
            except BufferError as exc:
                until = until or Deadline.after(self._config.timeout_s)
                if until.passed():
                    raise LogError(f"event log: append to {topic}: {self._clients.silence}") from exc
                outbox.poll(_LOOK_S)

    def _sending(self) -> "_Outbox":
        outbox = self._outbox
        if outbox is not None:
            return outbox
        with self._making:
            if self._closed:
                raise LogError("event log: closed, nothing can be appended")
            if self._outbox is None:
                self._outbox = _Outbox(self._clients.producer(self._producing()))
            return self._outbox

    def _producing(self) -> dict[str, Any]:
        """Settings of producers. The partitioner of Kafka's own clients (murmur2 of the key), so one key has the same
        partition number in all topics of as many partitions, whoever writes."""
        request_ms = int(self._clients.request_s * 1000)
        return {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "zstd",
            "linger.ms": _LINGER_MS,
            "batch.size": _BATCH_BYTES,
            "message.max.bytes": MAX_RECORD_BYTES,
            "queue.buffering.max.kbytes": _WAITING_KB,
            "request.timeout.ms": request_ms,
            "delivery.timeout.ms": max(int(self._config.timeout_s * 1000), 2 * request_ms + _LINGER_MS),
        }

    def flush(self, timeout_s: float) -> None:
        """Return once all that was appended is durable. Raises `LogError` when some of it was not acknowledged in
        time; what was not is dropped, and must be appended again."""
        me = threading.get_ident()
        with self._lock:
            outbox = self._outbox
            if me in self._owed:
                self._owed.discard(me)
                raise LogError("event log: records appended here were dropped when another thread's flush failed")
            waiting = list(outbox.waiting) if outbox else []
        if outbox is None:
            return
        try:
            self._acknowledged(outbox, waiting, Deadline.after(timeout_s))
        except LogError:
            self._give_up(outbox, me)
            raise
        with self._lock:
            outbox.waiting = [sent for sent in outbox.waiting if not sent.is_durable]

    def _acknowledged(self, outbox: "_Outbox", waiting: list["Sent"], until: Deadline) -> None:
        """Wait for all of `waiting`. Raises `LogError` at the first that failed, or when time is up."""
        for sent in waiting:
            while not sent.is_told and not until.passed():
                outbox.poll(min(_LOOK_S, until.left_s()))
            if sent.is_durable:
                continue
            error = sent.error or KafkaError(KafkaError._TIMED_OUT)
            num = f"{sum(not one.is_durable for one in waiting)} of {len(waiting)}"
            raise self._clients.failed(f"{num} records were not acknowledged by {self._config.brokers}", error)

    def _give_up(self, outbox: "_Outbox", me: int | None) -> None:
        """Drop a producer and what it was not told the fate of. Threads hear of theirs at their next flush, but `me`,
        which is told now. Who is not the first to drop it finds nothing to do."""
        with self._making:
            with self._lock:
                lost = {sent.thread for sent in outbox.waiting if not sent.is_durable}
                self._owed = (self._owed | lost) - {me}
                outbox.waiting = []
                if self._outbox is outbox:
                    self._outbox = None
            outbox.close()

    def subscribe(self, topics: Iterable[str], group: str | None, begin: Positions | None = None) -> KafkaSubscription:
        """Join `group`, or read all partitions alone, from `begin` on in those that it names.

        Topics that do not exist yet are read once they do.

        Raises:
            LogError: no broker answers.
        """
        if group is not None and self._config.local:
            self._remove_dead(group)
        return KafkaSubscription(self._clients, tuple(topics), group, self._member, begin)

    def _remove_dead(self, group: str) -> None:
        """Take dead processes of this machine out of `group`: their partitions would have no reader."""
        try:
            if dead := self._places.dead_members(group):
                small_broker.remove_members(broker.address(self._config), group, dead)
        except OSError as exc:  # a `LogError` is one
            logger.debug("event log: group %s: dead members not removed: %s", group, exc)

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        """All messages up to the newest at the time of the call, from `begin` on where it names a place, of
        `partitions` only; none where the topic does not exist.

        Raises:
            LogError: here or while iterating, when the broker gives nothing for `log.timeout_s`.
        """
        first, ends = self._places.bounds(topic)
        asked = begin or {}
        starts = {
            number: max(oldest, asked.get((topic, number), 0))
            for number, oldest in first.items()
            if partitions is None or number in partitions
        }
        return self._read(topic, {number: (at, ends[number]) for number, at in starts.items() if at < ends[number]})

    def _read(self, topic: str, spans: dict[int, tuple[int, int]]) -> Iterator[Message]:
        """The messages of partition -> (first offset, offset behind the last)."""
        if not spans:
            return
        consumer = self._clients.consumer(None)
        try:
            consumer.assign([TopicPartition(topic, number, first) for number, (first, _) in spans.items()])
            ends, quiet = {number: end for number, (_, end) in spans.items()}, Deadline.after(self._config.timeout_s)
            while ends:
                with self._clients.border(f"replay of {topic}"):
                    told = consumer.consume(1, POLL_S)
                    found, done = _taken(told + (consumer.consume(_REPLAYED, 0) if told else []), ends)
                    consumer.incremental_unassign([TopicPartition(topic, number) for number in done])
                for number in done:
                    del ends[number]
                if found or done:
                    quiet = Deadline.after(self._config.timeout_s)
                elif quiet.passed():
                    raise LogError(f"event log: replay of {topic}: {self._clients.silence}")
                yield from map(message_of, found)
        finally:
            consumer.close()

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        """The message at a place, or `None`. One read lately is remembered, and may be given after retention has
        removed it. Raises `LogError`."""
        return self._fetcher.fetch(topic, partition, offset)

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> offset of the next message to be written. Raises `LogError`."""
        return self._places.ends(topic)

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int]:
        """Messages that `group` has not committed, per topic. Raises `LogError`."""
        return self._places.lag(group, topics)

    def close(self) -> None:
        """Flush and let go. Raises `LogError` when the flush fails, and has let go then too."""
        try:
            self.flush(self._config.timeout_s)
        finally:
            with self._making:
                self._closed = True
                outbox, self._outbox = self._outbox, None
            if outbox:
                outbox.close()
            self._fetcher.close()
            self._places.close()


class Sent:
    """A message on its way, appended by `thread`: a `Receipt` once the broker has acknowledged it."""

    __slots__ = ("_place", "error", "is_told", "thread")

    def __init__(self, thread: int) -> None:
        self.thread, self.is_told = thread, False
        self.error: KafkaError | None = None
        self._place: tuple[int, int] | None = None

    def hear(self, error: KafkaError | None, record: KafkaMessage) -> None:
        """Be told what became of it, in any thread."""
        if error is None:
            self._place = record.partition(), record.offset()
        self.error = error
        self.is_told = True

    @property
    def is_durable(self) -> bool:
        return self._place is not None

    @property
    def partition(self) -> int:
        return self._known[0]

    @property
    def offset(self) -> int:
        return self._known[1]

    @property
    def _known(self) -> tuple[int, int]:
        if self._place is None:
            raise LogError("event log: where a message lies is known once it was flushed")
        return self._place


@dataclass
class _Outbox:
    """A producer, and what was appended to it and is not known to be durable."""

    producer: Producer
    waiting: list[Sent] = field(default_factory=list)
    is_closed: bool = False

    def poll(self, timeout_s: float) -> None:
        """Have what was sent told of. Raises `LogError` where another thread closes it."""
        with self.open():
            self.producer.poll(timeout_s)

    @contextmanager
    def open(self) -> Iterator[None]:
        """For a call of the producer. Raises `LogError` where another thread closes it: its flush failed."""
        try:
            yield
        except RuntimeError as exc:
            if not self.is_closed:
                raise
            raise LogError("event log: records were dropped when another thread's flush failed") from exc

    def close(self) -> None:
        """Stop at once; what was not acknowledged is dropped, or would arrive after the next producer's records."""
        if not self.is_closed:
            self.is_closed = True
            self.producer.purge()
            self.producer.close()


def _taken(told: list[KafkaMessage], ends: dict[int, int]) -> tuple[list[KafkaMessage], set[int]]:
    """The records below `ends`, and the partitions that were read up to there."""
    found, done = [], set[int]()
    for record in told:
        number, at, error = record.partition(), record.offset(), record.error()
        if error is None and at < ends.get(number, 0):
            found.append(record)
            at += 1
        elif error is not None and error.code() != KafkaError._PARTITION_EOF:
            if error.code() not in PASSING:
                raise KafkaException(error)
            continue
        if at >= ends.get(number, at + 1):
            done.add(number)
    return found, done

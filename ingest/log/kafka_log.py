"""The event log over Kafka: `ingest.log.EventLog`, with kafka-python.

Records are sent idempotently and acknowledged by all in-sync replicas. Consumers read committed records, commit only
when told to, and begin at the oldest record. Every wait ends: where Kafka's client would try for ever in silence,
`LogError` says which broker did not answer and for how long.

A producer that failed or timed out once is stopped and replaced before anything else is sent, since whether its
records arrived is not known; the new one has a new producer id, and the caller appends again what was not
acknowledged. Records that are appended in one thread should be flushed in it: when another thread's flush fails,
it is the appending thread whose next flush says so.
"""

import logging
import socket
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError, TopicAlreadyExistsError

from infra.config import LogConfig
from infra.errors import LogError, RecordError
from infra.lifecycle import Deadline
from ingest.log.kafka_clients import (
    CLOSE_S,
    MAX_RECORD_BYTES,
    POLL_S,
    KafkaClients,
    border,
    message_of,
    partitions_of,
)
from ingest.log.kafka_fetch import KafkaFetcher
from ingest.log.kafka_subscription import KafkaSubscription
from ingest.log.protocol import Message, Positions, TopicSpec
from ingest.log.topics import SEGMENTS
from ingest.records.events import Headers

_ENVELOPE_BYTES = 64 << 10  # key, headers and framing around a value
_BATCH_BYTES = 256 << 10
_LINGER_MS = 5

logger = logging.getLogger(__name__)


class KafkaLog:
    """An `EventLog` on the brokers of `config`. Connects on first use; `client_id` names it in the broker's logs."""

    def __init__(self, config: LogConfig, client_id: str, member: str | None = None) -> None:
        """`member` is this process's lasting name in its groups (static membership): started again under the same
        name, it has its partitions back without a rebalance. A name may be in use once at a time in a group."""
        self._config, self._member = config, member
        self._clients = KafkaClients(config, client_id)
        self._fetcher = KafkaFetcher(self._clients)
        self._lock = threading.Lock()  # the four below; never held while waiting for a broker
        self._outbox: _Outbox | None = None
        self._owed: set[int] = set()
        self._topics: set[str] = set()
        self._closed = False
        self._making = threading.Lock()  # one producer at a time: the old one has stopped before the new one sends

    def create(self, topics: Iterable[TopicSpec]) -> None:
        """Create what does not exist, and wait until it has leaders. Raises `LogError`."""
        specs = {spec.name: spec for spec in topics}
        with self._clients.opened(KafkaAdminClient) as admin, border("create topics"):
            held = set(admin.list_topics())
            missing = {name: self._options(spec) for name, spec in specs.items() if name not in held}
            if missing:
                _check_created(admin.create_topics(missing, raise_errors=False, timeout_ms=self._clients.timeout_ms))
                admin.wait_for_topics(list(missing), timeout_ms=self._clients.timeout_ms)
        with self._lock:
            self._topics |= set(specs)

    def _options(self, spec: TopicSpec) -> dict[str, Any]:
        configs = {"retention.ms": "-1", "max.message.bytes": str(MAX_RECORD_BYTES)}
        if spec.retention_s is not None:
            retention_ms = int(spec.retention_s * 1000)
            configs |= {"retention.ms": str(retention_ms), "segment.ms": str(max(1, retention_ms // SEGMENTS))}
        return {"num_partitions": spec.partitions, "replication_factor": self._config.replication, "configs": configs}

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
        with border(f"append to {topic}"):
            packed = [(name, text.encode()) for name, text in headers.items()]
            future = outbox.producer.send(topic, value=value, key=key.encode(), headers=packed)
        with self._lock:
            outbox.waiting.append((me, future))
            if outbox is not self._outbox:
                self._owed.add(me)
        return Sent(future)

    def _sending(self) -> "_Outbox":
        outbox = self._outbox
        if outbox is not None:
            return outbox
        with self._making:
            if self._closed:
                raise LogError("event log: closed, nothing can be appended")
            if self._outbox is None:
                self._outbox = _Outbox(self._clients.open(KafkaProducer, **self._producing()))
            return self._outbox

    def _producing(self) -> dict[str, Any]:
        """Settings of producers. Kafka's default partitioner (murmur2 of the key) is every client's, so one key has
        the same partition number in all topics of as many partitions."""
        return {
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "zstd",
            "linger_ms": _LINGER_MS,
            "batch_size": _BATCH_BYTES,
            "max_request_size": MAX_RECORD_BYTES,
            "max_block_ms": self._clients.timeout_ms,
            "delivery_timeout_ms": max(self._clients.timeout_ms, 2 * self._clients.request_ms + _LINGER_MS),
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
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
            sent = [future for _, future in outbox.waiting] if outbox else []
        if outbox is None:
            return
        try:
            _acknowledged(sent, timeout_s, self._config.brokers)
        except LogError:
            self._give_up(outbox, me)
            raise
        with self._lock:
            outbox.waiting = [(thread, future) for thread, future in outbox.waiting if not future.succeeded()]

    def _give_up(self, outbox: "_Outbox", me: int) -> None:
        """Drop a producer and what it was not told the fate of; other threads hear of theirs at their next flush."""
        with self._making:
            with self._lock:
                lost = {thread for thread, future in outbox.waiting if not future.succeeded()}
                self._owed = (self._owed | lost) - {me}
                outbox.waiting = []
                if self._outbox is outbox:
                    self._outbox = None
            outbox.close()

    def subscribe(self, topics: Iterable[str], group: str | None) -> KafkaSubscription:
        """Join `group`, or read all partitions alone.

        The topics should exist: a broker may create missing ones, with partitions of its choosing.

        Raises:
            LogError: no broker answers.
        """
        if group is not None:
            self._remove_dead(group)
        member = {"group_instance_id": self._member} if group and self._member else {}
        consumer = self._clients.consumer(group, **member)
        return KafkaSubscription(consumer, tuple(topics), group, self._config.timeout_s)

    def _remove_dead(self, group: str) -> None:
        """Take dead processes of this machine out of `group`: their partitions would have no reader meanwhile.

        A broker does so itself after the session timeout; the small one for one machine never does, and the group
        would stand still for good. One that does not let us is left to its own time.
        """
        with self._clients.opened(KafkaAdminClient) as admin:
            try:
                members = admin.describe_groups([group])[group]["members"]
                gone = [member for member in members if _is_gone(member["client_id"])]
                dead = [MemberToRemove(member["member_id"], member["group_instance_id"]) for member in gone]
                if dead:
                    admin.remove_group_members(group, dead)
            except KafkaError as exc:
                logger.debug("event log: group %s: dead members not looked for: %s", group, exc)

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        """All messages up to the newest at the time of the call, from `begin` on where it names a place, of
        `partitions` only; none where the topic does not exist.

        Raises:
            LogError: here or while iterating, when the broker gives nothing for `log.timeout_s`.
        """
        timeout_ms = self._clients.timeout_ms
        with self._clients.consuming() as consumer, border(f"replay of {topic}"):
            parts = [
                part for part in partitions_of(consumer, topic) if partitions is None or part.partition in partitions
            ]
            first = consumer.beginning_offsets(parts, timeout_ms=timeout_ms)
            ends = consumer.end_offsets(parts, timeout_ms=timeout_ms)
        asked = begin or {}
        starts = {part: max(first[part], asked.get((topic, part.partition), 0)) for part in parts}
        return self._read(starts, {part: end for part, end in ends.items() if end > starts[part]})

    def _read(self, starts: dict[Any, int], ends: dict[Any, int]) -> Iterator[Message]:
        """Messages from `starts` on and below `ends`, partition -> offset."""
        if not ends:
            return
        with self._clients.consuming() as consumer:
            consumer.assign(list(ends))
            for part in ends:
                consumer.seek(part, starts[part])
            left, quiet = set(ends), Deadline.after(self._config.timeout_s)
            while left:
                with border("replay"):
                    polled = consumer.poll(timeout_ms=int(POLL_S * 1000))
                    at = {part: consumer.position(part, self._clients.timeout_ms) or 0 for part in left}
                    done = {part for part in left if at[part] >= ends[part]}
                    consumer.pause(*done)
                for part in sorted(polled):
                    yield from (message_of(record) for record in polled[part] if record.offset < ends[part])
                if polled or done:
                    quiet = Deadline.after(self._config.timeout_s)
                elif quiet.passed():
                    raise LogError(
                        f"event log: replay got nothing from {self._config.brokers} for {self._clients.waited}"
                    )
                left -= done

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        """The message at a place, or `None`. One read lately is remembered, and may be given after retention has
        removed it. Raises `LogError`."""
        return self._fetcher.fetch(topic, partition, offset)

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> offset of the next message to be written. Raises `LogError`."""
        return self._fetcher.ends(topic)

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int]:
        """Messages that `group` has not committed, per topic. Raises `LogError`."""
        with self._clients.consuming(group) as consumer, border(f"lag of {group}"):
            return {topic: self._lag(consumer, partitions_of(consumer, topic)) for topic in topics}

    def _lag(self, consumer: Any, parts: list[Any]) -> int:
        first = consumer.beginning_offsets(parts, timeout_ms=self._clients.timeout_ms)
        ends = consumer.end_offsets(parts, timeout_ms=self._clients.timeout_ms)
        done = {part: consumer.committed(part, timeout_ms=self._clients.timeout_ms) or 0 for part in parts}
        return sum(max(0, ends[part] - max(first[part], done[part])) for part in parts)

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


@dataclass(frozen=True)
class Sent:
    """A message on its way: a `Receipt` by the client's future."""

    future: Any

    @property
    def partition(self) -> int:
        return int(self._metadata.partition)

    @property
    def offset(self) -> int:
        return int(self._metadata.offset)

    @property
    def _metadata(self) -> Any:
        if not self.future.succeeded():
            raise LogError("event log: where a message lies is known once it was flushed")
        return self.future.value


@dataclass
class _Outbox:
    """A producer, and what was appended to it and is not known to be durable: (thread, future)."""

    producer: Any
    waiting: list[tuple[int, Any]] = field(default_factory=list)

    def close(self) -> None:
        """Stop at once; what was not acknowledged is dropped.

        kafka-python's `close(timeout)` raises, and goes on sending, when records are left at the timeout: they
        would arrive after the newer ones of the next producer.
        """
        self.producer._sender.force_close()
        try:
            self.producer.close(timeout=CLOSE_S)
        except KafkaError as exc:
            logger.warning("event log: a producer did not stop in %g s: %s", CLOSE_S, exc)


def _is_gone(client_id: str) -> bool:
    """Whether a client, named `<name>.<host>.<process id>`, was a process of this host that has ended."""
    rest, _, number = client_id.rpartition(".")
    if not rest.endswith(f".{socket.gethostname()}") or not number.isdecimal():
        return False
    return not psutil.pid_exists(int(number))


def _check_created(answer: dict[str, Any]) -> None:
    """Raise `LogError` for the first topic refused for another reason than that it exists: others may create too."""
    for topic in answer["topics"]:
        if topic["error_code"] not in (0, TopicAlreadyExistsError.errno):
            raise LogError(f"event log: topic {topic['name']} not created: {topic['error_message']}")


def _acknowledged(sent: list[Any], timeout_s: float, brokers: str) -> None:
    """Wait for all of `sent`. Raises `LogError` at the first that failed, or when time is up."""
    deadline = Deadline.after(timeout_s)
    for future in sent:
        try:
            future.get(timeout=deadline.left_s())
        except KafkaError as exc:
            missing = sum(not one.succeeded() for one in sent)
            raise LogError(
                f"event log: {missing} of {len(sent)} records were not acknowledged by {brokers}: {exc}"
            ) from exc

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
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError
from kafka.net.compat import KafkaNetClient

from infra.config import LogConfig
from infra.errors import LogError, RecordError
from infra.lifecycle import Deadline
from ingest.log.protocol import Message, Positions, TopicSpec
from ingest.records.events import Headers

MAX_RECORD_BYTES = 16 << 20  # a session of the longest context with its request, several times over
_ENVELOPE_BYTES = 64 << 10  # key, headers and framing around a value
_BATCH_BYTES = 256 << 10
_LINGER_MS = 5
_RECONNECT_MS = 1000  # a broker that is back is found within this
_METADATA_MS = 10_000  # a topic made after its consumer is seen within this
_SESSION_S = 15.0  # a crashed consumer's partitions are handed on after this: five heartbeats of 3 s
_HANDLING_S = 900.0  # between two polls at most: the trainer's update is the longest
_CLOSE_S = 5.0
_POLL_S = 0.5
_IDLE_S = 0.05

logger = logging.getLogger(__name__)


class KafkaLog:
    """An `EventLog` on the brokers of `config`. Connects on first use; `client_id` names it in the broker's logs."""

    def __init__(self, config: LogConfig, client_id: str, member: str | None = None) -> None:
        """`member` is this process's lasting name in its groups (static membership): started again under the same
        name, it has its partitions back without a rebalance. A name may be in use once at a time in a group."""
        self._member = member
        self._config, self._client_id = config, f"{client_id}.{socket.gethostname()}.{os.getpid()}"
        self._lock = threading.Lock()  # the four below; never held while waiting for a broker
        self._outbox: _Outbox | None = None
        self._owed: set[int] = set()
        self._topics: set[str] = set()
        self._closed = False
        self._making = threading.Lock()  # one producer at a time: the old one has stopped before the new one sends
        _quieten()

    def create(self, topics: Iterable[TopicSpec]) -> None:
        """Create what does not exist, and wait until it has leaders. Raises `LogError`."""
        specs = {spec.name: spec for spec in topics}
        with self._opened(KafkaAdminClient) as admin, _border("create topics"):
            held = set(admin.list_topics())
            missing = {name: self._options(spec) for name, spec in specs.items() if name not in held}
            if missing:
                _check_created(admin.create_topics(missing, raise_errors=False, timeout_ms=self._timeout_ms))
                admin.wait_for_topics(list(missing), timeout_ms=self._timeout_ms)
        with self._lock:
            self._topics |= set(specs)

    def _options(self, spec: TopicSpec) -> dict[str, Any]:
        retention_ms = -1 if spec.retention_s is None else int(spec.retention_s * 1000)
        return {
            "num_partitions": spec.partitions,
            "replication_factor": self._config.replication,
            "configs": {"retention.ms": str(retention_ms), "max.message.bytes": str(MAX_RECORD_BYTES)},
        }

    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
        """Send; `flush` tells whether it arrived. An unknown topic is created with one partition.

        Raises:
            LogError: no broker takes it now; nothing was sent.
            RecordError: the record is too large, now and always.
        """
        if len(value) > MAX_RECORD_BYTES - _ENVELOPE_BYTES:
            raise RecordError(
                f"{topic}: a record may have {MAX_RECORD_BYTES - _ENVELOPE_BYTES} bytes, got {len(value)}"
            )
        if topic not in self._topics:
            self.create([TopicSpec(topic, 1, self._config.retention_s)])
        outbox, me = self._sending(), threading.get_ident()
        with _border(f"append to {topic}"):
            packed = [(name, text.encode()) for name, text in headers.items()]
            future = outbox.producer.send(topic, value=value, key=key.encode(), headers=packed)
        with self._lock:
            outbox.waiting.append((me, future))
            if outbox is not self._outbox:
                self._owed.add(me)

    def _sending(self) -> "_Outbox":
        outbox = self._outbox
        if outbox is not None:
            return outbox
        with self._making:
            if self._closed:
                raise LogError("event log: closed, nothing can be appended")
            if self._outbox is None:
                self._outbox = _Outbox(self._open(KafkaProducer, **self._producing()))
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
            "max_block_ms": self._timeout_ms,
            "delivery_timeout_ms": max(self._timeout_ms, 2 * self._request_ms + _LINGER_MS),
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

    def subscribe(self, topics: Iterable[str], group: str | None) -> "KafkaSubscription":
        """Join `group`, or read all partitions alone.

        The topics should exist: a broker may create missing ones, with partitions of its choosing.

        Raises:
            LogError: no broker answers.
        """
        if group is not None:
            self._remove_dead(group)
        member = {"group_instance_id": self._member} if group and self._member else {}
        consumer = self._open(KafkaConsumer, **self._consuming(group), **member)
        return KafkaSubscription(consumer, tuple(topics), group, self._config.timeout_s)

    def _remove_dead(self, group: str) -> None:
        """Take dead processes of this machine out of `group`: their partitions would have no reader meanwhile.

        A broker does so itself after the session timeout; the small one for one machine never does, and the group
        would stand still for good. One that does not let us is left to its own time.
        """
        with self._opened(KafkaAdminClient) as admin:
            try:
                members = admin.describe_groups([group])[group]["members"]
                gone = [member for member in members if _is_gone(member["client_id"])]
                dead = [MemberToRemove(member["member_id"], member["group_instance_id"]) for member in gone]
                if dead:
                    admin.remove_group_members(group, dead)
            except KafkaError as exc:
                logger.debug("event log: group %s: dead members not looked for: %s", group, exc)

    def _consuming(self, group: str | None) -> dict[str, Any]:
        """Settings of consumers. Range gives one consumer the same partition numbers of all topics, so a session's
        records of several topics meet; cooperative moves partitions without stopping all, and does not."""
        assignor = CooperativeStickyAssignor() if self._config.assignor == "cooperative" else RangePartitionAssignor
        return {
            "group_id": group,
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "partition_assignment_strategy": (assignor,),
            "session_timeout_ms": int(_SESSION_S * 1000),
            "max_poll_interval_ms": int(_HANDLING_S * 1000),
            "max_partition_fetch_bytes": MAX_RECORD_BYTES,
            "metadata_max_age_ms": _METADATA_MS,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }

    def replay(self, topic: str) -> Iterator[Message]:
        """All messages up to the newest at the time of the call; none where the topic does not exist.

        Raises:
            LogError: here or while iterating, when the broker gives nothing for `log.timeout_s`.
        """
        with self._opened(KafkaConsumer, **self._consuming(None)) as consumer, _border(f"replay of {topic}"):
            parts = _partitions(consumer, topic)
            first = consumer.beginning_offsets(parts, timeout_ms=self._timeout_ms)
            ends = consumer.end_offsets(parts, timeout_ms=self._timeout_ms)
        return self._read({part: end for part, end in ends.items() if end > first[part]})

    def _read(self, ends: dict[Any, int]) -> Iterator[Message]:
        """Messages below `ends`, partition -> offset."""
        if not ends:
            return
        with self._opened(KafkaConsumer, **self._consuming(None)) as consumer:
            consumer.assign(list(ends))
            left, quiet = set(ends), Deadline.after(self._config.timeout_s)
            while left:
                with _border("replay"):
                    polled = consumer.poll(timeout_ms=int(_POLL_S * 1000))
                    done = {part for part in left if (consumer.position(part, self._timeout_ms) or 0) >= ends[part]}
                    consumer.pause(*done)
                for part in sorted(polled):
                    yield from (_message(record) for record in polled[part] if record.offset < ends[part])
                if polled or done:
                    quiet = Deadline.after(self._config.timeout_s)
                elif quiet.passed():
                    raise LogError(f"event log: replay got nothing from {self._config.brokers} for {self._waited}")
                left -= done

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int]:
        """Messages that `group` has not committed, per topic. Raises `LogError`."""
        with self._opened(KafkaConsumer, **self._consuming(group)) as consumer, _border(f"lag of {group}"):
            return {topic: self._lag(consumer, _partitions(consumer, topic)) for topic in topics}

    def _lag(self, consumer: Any, parts: list[Any]) -> int:
        first = consumer.beginning_offsets(parts, timeout_ms=self._timeout_ms)
        ends = consumer.end_offsets(parts, timeout_ms=self._timeout_ms)
        done = {part: consumer.committed(part, timeout_ms=self._timeout_ms) or 0 for part in parts}
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

    @property
    def _timeout_ms(self) -> int:
        return int(self._config.timeout_s * 1000)

    @property
    def _request_ms(self) -> int:
        """Half the timeout, so that one lost answer leaves time to ask again."""
        return max(1000, min(30_000, self._timeout_ms // 2))

    @property
    def _waited(self) -> str:
        return f"{self._config.timeout_s:g} s"

    def _open(self, kind: Any, **settings: Any) -> Any:
        """A connected client, or `LogError`; a client that could not connect leaves no thread or socket behind."""
        made: list[Any] = []

        def network(**options: Any) -> Any:
            made.append(KafkaNetClient(**options))
            return made[-1]

        try:
            return kind(
                bootstrap_servers=self._config.brokers.split(","),
                client_id=self._client_id,
                bootstrap_timeout_ms=self._timeout_ms,
                request_timeout_ms=self._request_ms,
                reconnect_backoff_max_ms=_RECONNECT_MS,
                kafka_client=network,
                **settings,
            )
        except KafkaError as exc:
            for client in made:
                client.close()
            if isinstance(exc, KafkaTimeoutError):
                raise LogError(
                    f"event log: no broker answers at {self._config.brokers} (waited {self._waited})"
                ) from exc
            raise LogError(f"event log: broker at {self._config.brokers}: {exc}") from exc

    @contextmanager
    def _opened(self, kind: Any, **settings: Any) -> Iterator[Any]:
        client = self._open(kind, **settings)
        try:
            yield client
        finally:
            client.close()


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
            self.producer.close(timeout=_CLOSE_S)
        except KafkaError as exc:
            logger.warning("event log: a producer did not stop in %g s: %s", _CLOSE_S, exc)


class KafkaSubscription:
    """A consumer in a group. Not safe for use from several threads.

    While nothing arrives, the broker is asked now and then whether it is there and whether there is more to read: a
    consumer that has lost its broker, or stands still with records ahead, raises instead of waiting in silence.
    """

    def __init__(self, consumer: Any, topics: tuple[str, ...], group: str | None, timeout_s: float) -> None:
        self._consumer, self._timeout_s = consumer, timeout_s
        self._who = f"group {group}" if group else f"reader of {', '.join(topics)}"
        self._probe_s = min(_CLOSE_S, timeout_s / 3)
        self._next_probe = time.monotonic() + self._probe_s
        self._trouble: tuple[float, str] | None = None
        consumer.subscribe(list(topics))

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Messages in partition order; empty after `timeout_s` without any.

        Raises:
            LogError: for `log.timeout_s`, no broker answered or records that are there were not given.
        """
        with _border(f"poll of {self._who}"):
            polled = self._take(Deadline.after(timeout_s), max_messages)
        if polled:
            self._trouble, self._next_probe = None, time.monotonic() + self._probe_s
        elif time.monotonic() >= self._next_probe:
            self._watch()
        return [_message(record) for part in sorted(polled) for record in polled[part]]

    def _take(self, until: Deadline, max_messages: int) -> Any:
        """Partition -> records, from a consumer that waits here and not in the client, once it has its partitions.

        A broker may answer a fetch that finds nothing at once instead of after `fetch.max.wait.ms` (the small one
        does), and the client asks again at once: left to itself, an idle consumer takes a sixth of a core. While
        the group is forming it is the client that must wait: an answer that comes between two of its polls is
        thrown away, and it joins anew, for ever if the polls are short.
        """
        while True:
            wait_s = 0.0 if self._is_settled() else min(_POLL_S, until.left_s())
            polled = self._consumer.poll(timeout_ms=int(wait_s * 1000), max_records=max_messages)
            if polled or until.passed():
                return polled
            if self._is_settled():
                time.sleep(min(_IDLE_S, until.left_s()))

    def _is_settled(self) -> bool:
        member = self._consumer.group_metadata()
        return member.group_id is None or member.state is MemberState.STABLE

    def _watch(self) -> None:
        """Look for trouble, and raise once it has lasted."""
        found = self._probe()
        now = time.monotonic()
        self._next_probe = now + self._probe_s
        if found is None:
            self._trouble = None
            return
        since, _ = self._trouble = (self._trouble[0] if self._trouble else now, found)
        if now - since >= self._timeout_s - self._probe_s:
            raise LogError(f"event log: {self._who}: {found} (waited {self._timeout_s:g} s)")

    def _probe(self) -> str | None:
        """What is wrong, or nothing. Takes `_probe_s` at most."""
        probe_ms = int(self._probe_s * 1000)
        parts = list(self._consumer.assignment())
        try:
            if not parts:
                self._consumer.bootstrap(timeout_ms=probe_ms, refresh=True)
                return None
            ends = self._consumer.end_offsets(parts, timeout_ms=probe_ms)
            at = {part: self._consumer.position(part, timeout_ms=probe_ms) or 0 for part in parts}
        except KafkaError as exc:
            return f"no broker answers: {exc}"
        behind = [f"{part.topic}/{part.partition}" for part in parts if at[part] < ends[part]]
        return f"there are records in {', '.join(sorted(behind))}, and none is given" if behind else None

    def commit(self, positions: Positions) -> None:
        """Remember where the group goes on.

        Raises:
            LogError: no broker took it in time, or the group has given the partitions to another consumer.
        """
        if not positions:
            return
        offsets = {TopicPartition(*where): OffsetAndMetadata(at, "", -1) for where, at in positions.items()}
        with _border(f"commit of {self._who}"):
            self._consumer.commit(offsets, timeout_ms=int(self._timeout_s * 1000))

    def seek(self, positions: Positions) -> None:
        """Go on from elsewhere. Raises `LogError` for a partition that is not assigned now."""
        for where, offset in positions.items():
            try:
                self._consumer.seek(TopicPartition(*where), offset)
            except ValueError as exc:
                raise LogError(f"event log: {self._who}: seek {where[0]}/{where[1]}@{offset}: {exc}") from exc

    def assignment(self) -> frozenset[tuple[str, int]]:
        """(topic, partition) pairs this consumer reads now; empty until `poll` has joined the group."""
        return frozenset((part.topic, part.partition) for part in self._consumer.assignment())

    def close(self) -> None:
        """Leave the group, without committing; a broker that does not answer is waited for briefly."""
        self._consumer.close(autocommit=False, timeout_ms=int(_CLOSE_S * 1000))


def _is_gone(client_id: str) -> bool:
    """Whether a client, named `<name>.<host>.<process id>`, was a process of this host that has ended."""
    rest, _, number = client_id.rpartition(".")
    if not rest.endswith(f".{socket.gethostname()}") or not number.isdecimal():
        return False
    return not psutil.pid_exists(int(number))


def _message(record: Any) -> Message:
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    key = (record.key or b"").decode(errors="replace")
    return Message(record.topic, record.partition, record.offset, key, record.value or b"", headers)


def _partitions(consumer: Any, topic: str) -> list[Any]:
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]


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


@contextmanager
def _border(what: str) -> Iterator[None]:
    """Kafka's errors leave as ours."""
    try:
        yield
    except KafkaError as exc:
        raise LogError(f"event log: {what}: {exc}") from exc


def _quieten() -> None:
    """Kafka's client logs every retry, with stack traces; what matters reaches callers as `LogError`."""
    kafka = logging.getLogger("kafka")
    if kafka.level == logging.NOTSET:
        kafka.setLevel(logging.CRITICAL)

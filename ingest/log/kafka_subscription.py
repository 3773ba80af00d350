"""A consumer of `KafkaLog` that notices when it stands still."""

import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from operator import attrgetter

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from infra.errors import LogError
from infra.lifecycle import Deadline
from ingest.log.kafka_clients import AWAY, PASSING, POLL_S, KafkaClients, message_of
from ingest.log.protocol import Message, Positions

Where = tuple[str, int]
_PLACE = attrgetter("topic", "partition")

_IDLE_S = 0.05
_MISSING_S, _LOOK_S = 1.0, 10.0  # a reader without a group looks for new partitions this often
_PROBE_S = _CLOSE_S = 5.0
_SOON_S = 0.001


class KafkaSubscription:
    """A consumer in a group, or of all partitions alone. Not safe for use from several threads.

    While nothing arrives, the broker is asked now and then whether it is there and whether there is more to read: a
    consumer that has lost its broker, or stands still with records ahead, raises instead of waiting in silence.
    """

    def __init__(
        self,
        clients: KafkaClients,
        topics: tuple[str, ...],
        group: str | None,
        member: str | None,
        begin: Positions | None = None,
    ) -> None:
        self._clients, self._topics, self._group = clients, topics, group
        self._who = f"group {group}" if group else f"reader of {', '.join(topics)}"
        self._timeout_s = clients.config.timeout_s
        self._probe_s = min(_PROBE_S, self._timeout_s / 3)
        self._trouble: tuple[float, str] | None = None
        # A topic may come yet, and of a broker that is away the watch tells.
        self._passing = (*(AWAY if group else PASSING), KafkaError.UNKNOWN_TOPIC_OR_PART)
        # As the group told, in `poll`. To ask librdkafka while a rebalance is told is to wait.
        self._assigned: frozenset[Where] = frozenset()
        self._at: dict[Where, int] = {}  # where reading goes on
        self._ended: set[Where] = set()  # nothing more was there
        self._resting = set[Where]()
        self._ahead: list[KafkaMessage] = []  # came, and was not given yet; less what the group takes away meanwhile
        self._committing: set[tuple[Where, int]] = set()
        self._committed: list[KafkaError | None] = []
        named = {"group.instance.id": member} if group and member else {}
        self._consumer = clients.consumer(group, {**named, "on_commit": self._hear_commit})
        self._next_probe = time.monotonic() + self._probe_s
        self._num_probed = 0
        self._next_look = 0.0
        self._begin = dict(begin or {})
        if group is None:
            self._look()
        else:
            lost = self._hear_revoked
            self._consumer.subscribe(list(topics), on_assign=self._hear_assigned, on_revoke=lost, on_lost=lost)

    def _look(self) -> None:
        """Begin to read partitions that are new, where that is said, or at their oldest message."""
        try:
            held = self._consumer.list_topics(timeout=self._probe_s).topics
        except KafkaException:  # the watch tells
            held = {}
        places = {(name, number) for name in self._topics if name in held for number in held[name].partitions}
        if new := sorted(places - self.assignment()):
            self._consumer.incremental_assign(
                [TopicPartition(*where, self._begin.get(where, OFFSET_BEGINNING)) for where in new]
            )
            self._assigned |= set(new)
        is_whole = all(name in held for name in self._topics)
        self._next_look = time.monotonic() + (_LOOK_S if is_whole else _MISSING_S)

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Messages in partition order; empty after `timeout_s` without any.

        Raises:
            LogError: for `log.timeout_s`, no broker answered or records that are there were not given.
        """
        if self._group is None and time.monotonic() >= self._next_look:
            self._look()
        with self._clients.border(f"poll of {self._who}"):
            polled = self._take(Deadline.after(timeout_s), max_messages)
        if polled:
            self._trouble, self._next_probe = None, time.monotonic() + self._probe_s
        elif time.monotonic() >= self._next_probe:
            self._watch()
        return sorted(map(message_of, polled), key=_PLACE)

    def _take(self, until: Deadline, max_messages: int) -> list[KafkaMessage]:
        self._wake()
        while not self._ahead:
            self._consume(max_messages, min(POLL_S, until.left_s()))
            if until.passed():
                break
            if not self._ahead and self._is_hasty and self._has_all():
                self._rest()
                self._consume(max_messages, min(_IDLE_S, until.left_s()))
                self._wake()
        if self._is_hasty and len(self._ahead) < max_messages:
            self._come_to_rest()
        found, self._ahead[:] = self._ahead[:max_messages], self._ahead[max_messages:]
        return found

    def _consume(self, max_messages: int, timeout_s: float) -> None:
        """Take what is there, or comes first, into `_ahead`; nothing also where only a partition's end was reached."""
        told = self._consumer.consume(1, timeout_s)
        self._sort(told)
        if told and max_messages > 1:
            self._sort(self._consumer.consume(max_messages - 1, 0))

    def _sort(self, told: Iterable[KafkaMessage]) -> None:
        for record in told:
            where = (record.topic(), record.partition())
            error = record.error()
            if error is None:
                self._ahead.append(record)
                self._at[where] = record.offset() + 1
                self._ended.discard(where)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at[where] = record.offset()
                self._ended.add(where)
            elif error.code() not in self._passing:
                raise KafkaException(error)

    # -- the small broker's haste

    @property
    def _is_hasty(self) -> bool:
        """See `ingest.log.small_broker`."""
        return self._clients.config.local

    def _has_all(self) -> bool:
        return self.assignment() <= self._ended

    def _come_to_rest(self) -> None:
        """Fetch no more until the next poll, once the ends are known to be reached; what comes is given then."""
        until, num = Deadline.after(_IDLE_S), len(self._ahead)
        while not self._has_all() and not until.passed() and len(self._ahead) == num:
            self._consume(1, _SOON_S)
        if self._has_all():
            self._rest()

    def _rest(self) -> None:
        self._resting |= self.assignment()
        self._consumer.pause([TopicPartition(*where) for where in self._assigned])

    def _wake(self) -> None:
        """One that the group has taken away meanwhile is woken when it comes back."""
        woken = self._resting & self.assignment() if self._resting else set()
        if woken:
            self._consumer.resume([TopicPartition(*where) for where in woken])
            self._ended -= woken
            self._resting -= woken
            with suppress(KafkaException):  # any answer wakes the thread that fetches: else it sleeps out its second
                self._consumer.list_topics(timeout=_IDLE_S)

    # -- the watch

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
        parts = [TopicPartition(*where) for where in sorted(self._assigned)]
        parts = parts[self._num_probed :] + parts[: self._num_probed]  # where there is no time for all, next the others
        until = Deadline.after(self._probe_s)
        behind, num = [], 0
        try:
            if not parts:
                self._consumer.list_topics(timeout=self._probe_s)
            for num, part in enumerate(parts):
                if num and until.passed():
                    break
                first, end = self._consumer.get_watermark_offsets(part, timeout=until.left_s())
                if max(first, self._at.get((part.topic, part.partition), 0)) < end:
                    behind.append(f"{part.topic}/{part.partition}")
        except KafkaException as exc:
            error = exc.args[0]
            is_away = error.code() in (*AWAY, KafkaError._UNKNOWN_PARTITION)  # with no broker it has no leader
            return f"no broker answers at {self._clients.config.brokers}" if is_away else str(error.str())
        self._num_probed = num if until.passed() else 0
        return f"there are records in {', '.join(sorted(behind))}, and none is given" if behind else None

    # -- places

    def commit(self, positions: Positions) -> None:
        """Remember where the group goes on.

        Raises:
            LogError: no broker took it in time, or the group has given the partitions to another consumer.
        """
        if not positions:
            return
        what = f"commit of {self._who}"
        if self._group is None:
            raise LogError(f"event log: {what}: it is in no group")
        parts = [TopicPartition(*where, offset) for where, offset in positions.items()]
        self._committing, self._committed = set(positions.items()), []
        with self._clients.border(what):
            # Only where the group's coordinator answers: librdkafka keeps a commit that it cannot send, closing waits
            # for that, and one time in ten it ended the process with an assertion when the broker came back.
            self._consumer.committed(parts[:1], timeout=self._timeout_s)
            self._consumer.commit(offsets=parts, asynchronous=True)
            self._await_commit(Deadline.after(self._timeout_s))
        error = self._committed[0] if self._committed else KafkaError(KafkaError._TIMED_OUT)
        if error is not None:
            raise self._clients.failed(what, error)

    def _await_commit(self, until: Deadline) -> None:
        """librdkafka's own wait has no end where a broker hangs. Its answer is told in between messages."""
        wait_s = _SOON_S
        while not self._committed and not until.passed():
            self._consume(1, min(wait_s, until.left_s()))
            wait_s = min(_IDLE_S, 2 * wait_s)

    def _hear_commit(self, error: KafkaError | None, parts: list[TopicPartition]) -> None:
        if {((part.topic, part.partition), part.offset) for part in parts} != self._committing:
            return  # the late answer of one that was given up
        failed = [part.error for part in parts if part.error is not None]
        self._committed.append(error or (failed[0] if failed else None))

    def seek(self, positions: Positions) -> None:
        """Go on from elsewhere. Raises `LogError` for a partition that is not assigned now."""
        assigned = self.assignment()
        for where, offset in positions.items():
            what = f"{self._who}: seek {where[0]}/{where[1]}@{offset}"
            if where not in assigned:
                raise LogError(f"event log: {what}: it is not assigned")
            with self._clients.border(what):
                self._seek(TopicPartition(*where, offset), Deadline.after(self._timeout_s))
            self._forget({where})
            self._at[where] = offset

    def _seek(self, part: TopicPartition, until: Deadline) -> None:
        """A partition that was just assigned cannot be sought for a moment."""
        while True:
            try:
                self._consumer.seek(part)
                return
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError._STATE or until.passed():
                    raise
                self._consume(1, _SOON_S)

    def assignment(self) -> frozenset[Where]:
        """(topic, partition) pairs this consumer reads now; empty until `poll` has joined the group."""
        return self._assigned

    def _hear_assigned(self, _consumer: Consumer, parts: list[TopicPartition]) -> None:
        self._assigned |= {(part.topic, part.partition) for part in parts}

    def _hear_revoked(self, _consumer: Consumer, parts: list[TopicPartition]) -> None:
        gone = {(part.topic, part.partition) for part in parts}
        self._assigned -= gone
        self._forget(gone)

    def _forget(self, gone: Collection[Where]) -> None:
        """Of these partitions, what came and where reading was: it goes on elsewhere."""
        self._ahead[:] = [one for one in self._ahead if (one.topic(), one.partition()) not in gone]
        for where in gone:
            self._at.pop(where, None)
            self._ended.discard(where)

    def close(self) -> None:
        """Leave the group, without committing; a broker that does not answer is waited for briefly.

        librdkafka waits for what was to be committed, and longer than that.
        """
        leaving = threading.Thread(target=self._consumer.close, name="leaving", daemon=True)
        leaving.start()
        leaving.join(_CLOSE_S)

"""Reading and writing records, as every stage does it.

The commit order of a stage, which `Reader` and `send` are made for:

    1. poll       records of several topics; undecodable ones are appended to the dead-letter topic, those of a version
                  newer than this process knows are parked
    2. handle     outputs are appended, keyed by deterministic ids
    3. flush      outputs, dead letters and what is parked are durable
    4. commit     the group's positions move

A crash before 4 repeats 1-3: the same outputs with the same ids, which readers keep once.

What was parked comes back by itself: a `Reader` that is given a partition puts back what lay in it, as far as this
process knows its version, at the end of the topic (see `ingest.log.redrive`). A `Follower` and `replay` have no place
of their own to park in, and stop instead: what they leave out might be a rollback, or a session that was closed.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from infra import telemetry
from infra.errors import ErasedError, LogError, NewerError, OnstreamError, RecordError
from infra.lifecycle import Pulse, Stop, backoff_s
from infra.telemetry import metrics, names
from ingest.log import letters
from ingest.log.letters import Failure
from ingest.log.protocol import EventLog, Message, Positions, Receipt
from ingest.log.redrive import put_back_parked
from ingest.log.topics import Topic
from ingest.records import codec
from ingest.records.codec import SUBJECT_HEADER, Read
from ingest.records.events import AnyRecord, Headers, Record
from ingest.records.named import IDS_HEADER, ids_header, trace_ids_in

logger = logging.getLogger(__name__)

_TELL_LAG_EVERY_S = 15.0
_HEALTHY_S = 60.0  # a run this long was no failed attempt: the next outage is waited for from the start


def send(log: EventLog, topic: Topic, key: str, record: Record, about: Headers | None = None) -> Receipt:
    """Append a record that a later stage goes on from, with its trace context in its headers.

    Where it lies is known after a flush. `about` are headers that say whom and what it is about: see `labels`.
    """
    if not telemetry.current().is_recording():
        return append(log, topic, key, record, about)
    with telemetry.span(names.SEND, names.messaging("send", topic.name), of=topic.name):
        return append(log, topic, key, record, about)


def append(log: EventLog, topic: Topic, key: str, record: Record, about: Headers | None = None) -> Receipt:
    """The same, without a span of its own: for records that end something."""
    value, headers = codec.encode(record)
    if telemetry.is_measuring():
        telemetry.count(metrics.SENT, 1, names.messaging("send", topic.name))
    return log.append(topic.name, key, value, headers | (about or {}) | telemetry.headers_out())


def labels(subjects: Iterable[str], trace_ids: Iterable[str]) -> Headers:
    """Headers of a record made of what was read: it is sealed under the same keys, and names its traces without."""
    names = " ".join(dict.fromkeys(subjects))
    return {SUBJECT_HEADER: names, IDS_HEADER: ids_header(trace_ids)} if names else {}


@dataclass(frozen=True)
class Erased:
    """A record that cannot be read any more: the key of whom it is about was erased. `trace_ids` are its traces'."""

    topic: str
    trace_ids: tuple[str, ...]

    @classmethod
    def of(cls, message: Message) -> "Erased":
        return cls(message.topic, trace_ids_in(message.key, message.headers))


def replay(log: EventLog, topic: Topic, kind: type[AnyRecord], begin: Positions | None = None) -> Iterable[AnyRecord]:
    """All readable records of a topic, oldest first, or those from `begin` on; unreadable ones are its consumers' to
    dead-letter.

    Raises:
        NewerError: one is of a version newer than this process knows.
    """
    for message in log.replay(topic.name, begin):
        try:
            yield codec.decode(message.value, message.headers, kind)
        except NewerError as exc:
            raise too_old(message, exc) from exc
        except RecordError as exc:
            logger.warning("%s: skipped: %s", place(message), exc)


def place(message: Message) -> str:
    """Where a message lies, for people."""
    return f"{message.topic}/{message.partition}@{message.offset}"


def too_old(message: Message, exc: NewerError) -> NewerError:
    """The error of a reader that cannot leave out a message of a newer version, and stops."""
    return NewerError(f"{place(message)}: {exc}; without it nothing here can go on")


class Reader:
    """A group's view of some topics, as records."""

    def __init__(self, log: EventLog, topics: Iterable[Topic], group: str) -> None:
        self._log, self._group = log, group
        self._topics = {topic.name: topic for topic in topics}
        self._assigned: frozenset[tuple[str, int]] = frozenset()
        self._tell_lag_at = 0.0
        self.subscription = log.subscribe(self._topics, group)

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[tuple[Message, Record | Erased | None]]:
        """Messages with their records; `None` for one that was dead-lettered or parked. Raises `LogError`."""
        return self.poll_with(self._record, timeout_s, max_messages)

    def poll_with(
        self, decode: Callable[[Message], Read], timeout_s: float, max_messages: int = 500
    ) -> list[tuple[Message, Read | Erased | None]]:
        """The same, with what `decode` makes of a message; it raises as `codec.decode` does."""
        messages = self.subscription.poll(timeout_s, max_messages)
        self._put_back()
        self._tell(messages)
        return [(message, self._decoded(decode, message)) for message in messages]

    def _tell(self, messages: Iterable[Message]) -> None:
        if not telemetry.is_measuring():
            return
        for topic, num in Counter(message.topic for message in messages).items():
            told = names.messaging("process", topic) | {names.GROUP: self._group}
            telemetry.count(metrics.CONSUMED, num, told)
        if time.monotonic() >= self._tell_lag_at:
            self._tell_lag_at = time.monotonic() + _TELL_LAG_EVERY_S
            with suppress(LogError):  # a broker that is away is the next poll's to report
                for topic, num in self._log.lag(self._group, self._topics).items():
                    telemetry.gauge(metrics.LAG, num, {names.GROUP: self._group, names.DESTINATION: topic})

    def _put_back(self) -> None:
        """What is parked of the partitions that this process was just given, and knows by now."""
        assigned = self.subscription.assignment()
        gained, self._assigned = assigned - self._assigned, assigned
        for name in sorted({topic for topic, _ in gained}):
            partitions = {number for topic, number in gained if topic == name}
            num = put_back_parked(self._log, self._group, self._topics[name], partitions)
            if num:
                logger.info("%s: put back %d records that were parked for a reader of their version", name, num)

    def _record(self, message: Message) -> Record:
        return codec.decode(message.value, message.headers, self._topics[message.topic].record)

    def _decoded(self, decode: Callable[[Message], Read], message: Message) -> Read | Erased | None:
        try:
            return decode(message)
        except ErasedError as exc:
            logger.info("%s: %s", place(message), exc)
            telemetry.count(metrics.ERASED_READ, 1, {names.DESTINATION: message.topic})
            return Erased.of(message)
        except NewerError as exc:
            logger.warning("%s: parked: %s", place(message), exc)
            is_kept = letters.park(self._log, self._group, message, str(exc))
            return None if is_kept else Erased.of(message)
        except RecordError as exc:
            logger.error("%s: dead-lettered: %s", place(message), exc)
            is_kept = letters.bury(self._log, self._group, message, Failure.UNREADABLE, str(exc))
            return None if is_kept else Erased.of(message)

    def close(self) -> None:
        self.subscription.close()


class Follower:
    """All records of some topics from the oldest on, in no group: each follower sees everything.

    Undecodable records are skipped with a warning; the topic's own group dead-letters them. One of a version newer
    than this process knows ends it. `positions` are where it reads on; `begin` says where to begin, in partitions that
    it names.
    """

    def __init__(self, log: EventLog, topics: Iterable[Topic], begin: Positions | None = None) -> None:
        self._kinds = {topic.name: topic.record for topic in topics}
        self._subscription = log.subscribe(self._kinds, None, begin)
        self.positions: dict[tuple[str, int], int] = dict(begin or {})
        self._newer: NewerError | None = None

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Record]:
        """The records of `read`."""
        return [record for record, _ in self.read(timeout_s, max_messages)]

    def read(self, timeout_s: float, max_messages: int = 500) -> list[tuple[Record, Message]]:
        """What came since the last call, as far as the first record that is too new, each with its message.

        Raises:
            LogError: the log is away; make a new follower then.
            NewerError: a record of a newer version comes next: this process is too old to go on.
        """
        if self._newer is not None:
            raise self._newer
        found: list[tuple[Record, Message]] = []
        for message in self._subscription.poll(timeout_s, max_messages):
            self.positions[message.topic, message.partition] = message.offset + 1
            try:
                record = codec.decode(message.value, message.headers, self._kinds[message.topic])
                found.append((record, message))
            except NewerError as exc:
                self._newer = too_old(message, exc)
                if not found:
                    raise self._newer from exc
                return found
            except RecordError as exc:
                logger.warning("%s: skipped: %s", place(message), exc)
        return found

    def close(self) -> None:
        self._subscription.close()


def outlast_outages(
    stop: Stop,
    run: Callable[[], None],
    outages: tuple[type[OnstreamError], ...] = (LogError,),
    pulse: Pulse | None = None,
) -> None:
    """Call `run` until it returns or `stop` is set; begin it anew, after a wait, whenever the log fails.

    `outages` are the errors that say so, and those of what else a stage writes to.

    `run` makes its own consumers and state from what the log has committed, so beginning anew is a restart. `pulse` is
    beaten while waiting, with the outage as its trouble: being without a broker is not being stuck.
    """
    pulse = pulse or Pulse()
    waits = backoff_s(0.5, 15.0)
    while not stop.is_set():
        begun = time.monotonic()
        try:
            run()
            return
        except outages as exc:
            if time.monotonic() - begun > _HEALTHY_S:
                waits = backoff_s(0.5, 15.0)
            wait = next(waits)
            logger.warning("%s; trying again in %.1f s", exc, wait)
            pulse.beat(str(exc))
            stop.wait(wait)

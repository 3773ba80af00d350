"""Reading and writing records, as every stage does it.

The commit order of a stage, which `Reader` and `send` are made for:

    1. poll       records of several topics; undecodable ones are appended to the dead-letter topic
    2. handle     outputs are appended, keyed by deterministic ids
    3. flush      outputs and dead letters are durable
    4. commit     the group's positions move

A crash before 4 repeats 1-3: the same outputs with the same ids, which readers keep once.
"""

import logging
import time
from collections.abc import Callable, Iterable

from infra import telemetry
from infra.errors import LogError, OnstreamError, RecordError
from infra.lifecycle import Stop, backoff_s
from ingest.log import letters
from ingest.log.letters import Failure
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import Topic
from ingest.records import codec
from ingest.records.events import AnyRecord, Record

logger = logging.getLogger(__name__)

_HEALTHY_S = 60.0  # a run this long was no failed attempt: the next outage is waited for from the start


def send(log: EventLog, topic: Topic, key: str, record: Record) -> None:
    """Append a record, with the current trace context in its headers."""
    value, headers = codec.encode(record)
    log.append(topic.name, key, value, headers | telemetry.headers_out())


def replay(log: EventLog, topic: Topic, kind: type[AnyRecord]) -> Iterable[AnyRecord]:
    """All readable records of a topic, oldest first; unreadable ones are its consumers' to dead-letter."""
    for message in log.replay(topic.name):
        try:
            yield codec.decode(message.value, message.headers, kind)
        except RecordError as exc:
            logger.warning("%s: skipped: %s", place(message), exc)


def place(message: Message) -> str:
    """Where a message lies, for people."""
    return f"{message.topic}/{message.partition}@{message.offset}"


class Reader:
    """A group's view of some topics, as records."""

    def __init__(self, log: EventLog, topics: Iterable[Topic], group: str) -> None:
        self._log, self._group = log, group
        self._kinds = {topic.name: topic.record for topic in topics}
        self.subscription = log.subscribe(self._kinds, group)

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[tuple[Message, Record | None]]:
        """Messages with their records; `None` for one that went to the dead-letter topic."""
        return [(message, self._decode(message)) for message in self.subscription.poll(timeout_s, max_messages)]

    def _decode(self, message: Message) -> Record | None:
        try:
            return codec.decode(message.value, message.headers, self._kinds[message.topic])
        except RecordError as exc:
            logger.error("%s: dead-lettered: %s", place(message), exc)
            letters.bury(self._log, self._group, message, Failure.UNREADABLE, str(exc))
            return None

    def close(self) -> None:
        self.subscription.close()


class Follower:
    """All records of some topics from the oldest on, in no group: each follower sees everything.

    Undecodable records are skipped with a warning; the topic's own group dead-letters them.
    """

    def __init__(self, log: EventLog, topics: Iterable[Topic]) -> None:
        self._kinds = {topic.name: topic.record for topic in topics}
        self._subscription = log.subscribe(self._kinds, None)

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Record]:
        """What came since the last call. Raises `LogError` when the log is away: make a new follower then."""
        found: list[Record] = []
        for message in self._subscription.poll(timeout_s, max_messages):
            try:
                found.append(codec.decode(message.value, message.headers, self._kinds[message.topic]))
            except RecordError as exc:
                logger.warning("%s: skipped: %s", place(message), exc)
        return found

    def close(self) -> None:
        self._subscription.close()


def outlast_outages(
    stop: Stop, run: Callable[[], None], outages: tuple[type[OnstreamError], ...] = (LogError,)
) -> None:
    """Call `run` until it returns or `stop` is set; begin it anew, after a wait, whenever the log fails.

    `outages` are the errors that say so, and those of what else a stage writes to.

    `run` makes its own consumers and state from what the log has committed, so beginning anew is a restart.
    """
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
            stop.wait(wait)

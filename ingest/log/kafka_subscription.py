"""A consumer of `KafkaLog` that notices when it stands still."""

import time
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError

from infra.errors import LogError
from infra.lifecycle import Deadline
from ingest.log.kafka_clients import CLOSE_S, POLL_S, border, message_of
from ingest.log.protocol import Message, Positions

_IDLE_S = 0.05


class KafkaSubscription:
    """A consumer in a group. Not safe for use from several threads.

    While nothing arrives, the broker is asked now and then whether it is there and whether there is more to read: a
    consumer that has lost its broker, or stands still with records ahead, raises instead of waiting in silence.
    """

    def __init__(self, consumer: Any, topics: tuple[str, ...], group: str | None, timeout_s: float) -> None:
        self._consumer, self._timeout_s = consumer, timeout_s
        self._who = f"group {group}" if group else f"reader of {', '.join(topics)}"
        self._probe_s = min(CLOSE_S, timeout_s / 3)
        self._next_probe = time.monotonic() + self._probe_s
        self._trouble: tuple[float, str] | None = None
        consumer.subscribe(list(topics))

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Messages in partition order; empty after `timeout_s` without any.

        Raises:
            LogError: for `log.timeout_s`, no broker answered or records that are there were not given.
        """
        with border(f"poll of {self._who}"):
            polled = self._take(Deadline.after(timeout_s), max_messages)
        if polled:
            self._trouble, self._next_probe = None, time.monotonic() + self._probe_s
        elif time.monotonic() >= self._next_probe:
            self._watch()
        return [message_of(record) for part in sorted(polled) for record in polled[part]]

    def _take(self, until: Deadline, max_messages: int) -> Any:
        """Partition -> records, from a consumer that waits here and not in the client, once it has its partitions.

        A broker may answer a fetch that finds nothing at once instead of after `fetch.max.wait.ms` (the small one
        does), and the client asks again at once: left to itself, an idle consumer takes a sixth of a core. While
        the group is forming it is the client that must wait: an answer that comes between two of its polls is
        thrown away, and it joins anew, for ever if the polls are short.
        """
        while True:
            wait_s = 0.0 if self._is_settled() else min(POLL_S, until.left_s())
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
        with border(f"commit of {self._who}"):
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
        self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_S * 1000))

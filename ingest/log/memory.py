"""An event log in this process: the shipped double that passes the same conformance suite as `KafkaLog`."""

import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from ingest.log.protocol import Message, Positions, TopicSpec
from ingest.records.events import Headers


@dataclass
class _Partition:
    """The messages of a partition that are left; `first` is the offset of the oldest."""

    messages: list[Message] = field(default_factory=list)
    first: int = 0

    @property
    def end(self) -> int:
        return self.first + len(self.messages)

    def since(self, offset: int) -> list[Message]:
        """From `offset` on, or from the oldest that is left."""
        return self.messages[max(0, offset - self.first) :]


@dataclass
class _Shared:
    """What outlives a restart of `InMemoryLog`."""

    partitions: dict[str, list[_Partition]] = field(default_factory=dict)
    committed: dict[str, dict[tuple[str, int], int]] = field(default_factory=lambda: defaultdict(dict))
    members: dict[str, list["InMemorySubscription"]] = field(default_factory=lambda: defaultdict(list))
    changed: threading.Condition = field(default_factory=threading.Condition)


class InMemoryLog:
    """An `EventLog` in this process. `restart()` drops every consumer, as a broker's restart does."""

    def __init__(self) -> None:
        self._shared = _Shared()

    def create(self, topics: Iterable[TopicSpec]) -> None:
        with self._shared.changed:
            for spec in topics:
                self._shared.partitions.setdefault(spec.name, [_Partition() for _ in range(spec.partitions)])

    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> Message:
        with self._shared.changed:
            partitions = self._shared.partitions.setdefault(topic, [_Partition()])
            index = zlib.crc32(key.encode()) % len(partitions)
            into = partitions[index]
            into.messages.append(Message(topic, index, into.end, key, value, dict(headers)))
            self._shared.changed.notify_all()
            return into.messages[-1]

    def flush(self, timeout_s: float) -> None:
        """Appends are durable at once, as far as memory is."""

    def subscribe(
        self, topics: Iterable[str], group: str | None, begin: Positions | None = None
    ) -> "InMemorySubscription":
        found = InMemorySubscription(self._shared, tuple(topics), group or f"alone-{uuid.uuid4().hex}")
        if group is None:
            found.seek(begin or {})
        return found

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        asked = begin or {}
        with self._shared.changed:
            parts = enumerate(self._shared.partitions.get(topic, []))
            wanted = [(index, part) for index, part in parts if partitions is None or index in partitions]
            return iter([message for index, part in wanted for message in part.since(asked.get((topic, index), 0))])

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        with self._shared.changed:
            for part in self._shared.partitions.get(topic, [])[partition : partition + 1]:
                if part.first <= offset < part.end:
                    return part.messages[offset - part.first]
        return None

    def ends(self, topic: str) -> dict[int, int]:
        with self._shared.changed:
            return {index: part.end for index, part in enumerate(self._shared.partitions.get(topic, []))}

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int]:
        with self._shared.changed:
            done = self._shared.committed[group]
            return {
                topic: sum(
                    part.end - max(part.first, done.get((topic, index), 0))
                    for index, part in enumerate(self._shared.partitions.get(topic, []))
                )
                for topic in topics
            }

    def restart(self) -> None:
        """Forget all consumers and what they had not committed; keep messages and commits."""
        with self._shared.changed:
            for members in self._shared.members.values():
                for member in members:
                    member.positions.clear()
            self._shared.changed.notify_all()

    def forget(self, topic: str, partition: int, before: int) -> None:
        """Remove the messages below offset `before`, as retention does."""
        with self._shared.changed:
            part = self._shared.partitions[topic][partition]
            part.messages, part.first = part.since(before), max(part.first, min(before, part.end))

    def close(self) -> None:
        """Nothing is held outside this process."""


class InMemorySubscription:
    """A consumer of `InMemoryLog`. Members of a group share out partition numbers by their order of joining, so that
    one reads the same numbers of all topics."""

    def __init__(self, shared: _Shared, topics: tuple[str, ...], group: str) -> None:
        self._shared, self._topics, self._group = shared, topics, group
        self.positions: dict[tuple[str, int], int] = {}
        with shared.changed:
            shared.members[group].append(self)
            self._rebalance()

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        until = time.monotonic() + timeout_s
        with self._shared.changed:
            while not (found := self._take(max_messages)):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._shared.changed.wait(left)
        return found

    def _take(self, max_messages: int) -> list[Message]:
        found: list[Message] = []
        for where in sorted(self.assignment()):
            start = self.positions.get(where, self._shared.committed[self._group].get(where, 0))
            part = self._shared.partitions[where[0]][where[1]]
            batch = part.since(start)[: max_messages - len(found)]
            self.positions[where] = max(start, part.first) + len(batch)
            found += batch
        return found

    def commit(self, positions: Positions) -> None:
        with self._shared.changed:
            self._shared.committed[self._group].update(positions)

    def seek(self, positions: Positions) -> None:
        self.positions.update(positions)

    def assignment(self) -> frozenset[tuple[str, int]]:
        with self._shared.changed:
            members = self._shared.members[self._group]
            held = [
                (topic, index) for topic in self._topics for index in range(len(self._shared.partitions.get(topic, [])))
            ]
            mine = members.index(self)
            return frozenset(where for where in held if where[1] % len(members) == mine)

    def close(self) -> None:
        with self._shared.changed:
            self._shared.members[self._group].remove(self)
            self._rebalance()
            self._shared.changed.notify_all()

    def _rebalance(self) -> None:
        """All members go on from what the group has committed, in what they keep and in what they are given."""
        for member in self._shared.members[self._group]:
            member.positions.clear()

"""The event log: a protocol that `KafkaLog` fulfils, and `InMemoryLog`, the double for tests.

Values are bytes and headers are text; `ingest.records.codec` gives them meaning. Delivery is at least once: a message
is read again after a crash between handling and `commit`, so every sink is idempotent by key.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ingest.records.events import Headers


class Message(NamedTuple):
    """One message as it lies in a partition. `offset` is its place; the next one is read at `offset + 1`."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Headers


@dataclass(frozen=True)
class TopicSpec:
    """How to create a topic. `retention_s` is `None` for topics kept for ever."""

    name: str
    partitions: int
    retention_s: float | None


Positions = Mapping[tuple[str, int], int]
"""(topic, partition) -> offset of the next message to read."""


class Receipt(Protocol):
    """Where an appended message lies. Known once `flush` has returned; asked for earlier, that is an error."""

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...


class Subscription(Protocol):
    """A consumer in a group. Not safe for use from several threads."""

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Messages in partition order; empty after `timeout_s` without any. Raises `LogError` when stuck."""

    def commit(self, positions: Positions) -> None:
        """Remember where the group goes on after a restart."""

    def seek(self, positions: Positions) -> None:
        """Go on from elsewhere, in partitions assigned now."""

    def assignment(self) -> frozenset[tuple[str, int]]:
        """Partitions this consumer reads now."""

    def close(self) -> None:
        """Leave the group."""


class EventLog(Protocol):
    """Topics of keyed messages; one key's messages keep their order. Safe for use from several threads."""

    def create(self, topics: Iterable[TopicSpec]) -> None:
        """Create what does not exist."""

    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> Receipt:
        """Send; `flush` tells whether it arrived."""

    def flush(self, timeout_s: float) -> None:
        """Return once all that was appended is durable. Raises `LogError` otherwise, and then what was not
        acknowledged must be appended again."""

    def subscribe(self, topics: Iterable[str], group: str | None, begin: Positions | None = None) -> Subscription:
        """Join `group`, beginning at the oldest message where it has no committed position.

        `None` joins no group: such a reader has all partitions to itself, begins at the oldest message, or in those
        that `begin` names there, and cannot commit.
        """

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        """All messages from the oldest to the newest at the time of the call; joins no group.

        `begin` says where to begin in partitions of this topic that it names: at the oldest there is, where that is
        newer. `partitions` are the only ones read; `None` is all of them.
        """

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        """The message at a place; `None` where retention or compaction has removed it, or it is not there yet. Joins
        no group. Cheap where neighbours are asked for in turn, or the same again."""

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> offset of the next message to be written; empty for a topic that does not exist."""

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int]:
        """Messages that `group` has not committed, per topic."""

    def close(self) -> None:
        """Flush and let go."""

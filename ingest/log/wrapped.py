"""An event log around another one that changes values on their way out, and puts them back on their way in."""

from collections.abc import Collection, Iterable, Iterator

from infra.errors import LogError
from ingest.log.protocol import EventLog, Message, Positions, Receipt, Subscription, TopicSpec
from ingest.records.events import Headers

_GIVEN_BYTES = 64 << 20  # values that one poll gives, or little more: put back, they can be far larger than they lay


class WrappedLog:
    """An `EventLog` that is `inner` but for values and headers. Subclasses say what changes: `_out` and `_back`."""

    def __init__(self, inner: EventLog) -> None:
        self.inner = inner

    def _out(self, topic: str, key: str, value: bytes, headers: Headers) -> tuple[bytes, Headers]:
        """What to append in place of `value` and `headers`. Raises `LogError`, and `RecordError` for what can never
        be appended."""
        return value, headers

    def _back(self, message: Message) -> Message:
        """A message as it was before `_out`, or with the header `codec.UNUSABLE`, saying why, where that cannot be had
        any more. Raises `LogError` where it cannot be had now."""
        return message

    def create(self, topics: Iterable[TopicSpec]) -> None:
        self.inner.create(topics)

    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> Receipt:
        value, headers = self._out(topic, key, value, headers)
        return self.inner.append(topic, key, value, headers)

    def flush(self, timeout_s: float) -> None:
        self.inner.flush(timeout_s)

    def subscribe(self, topics: Iterable[str], group: str | None, begin: Positions | None = None) -> Subscription:
        return _WrappedSubscription(self.inner.subscribe(topics, group, begin), self)

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        return map(self._back, self.inner.replay(topic, begin, partitions))

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        found = self.inner.fetch(topic, partition, offset)
        return None if found is None else self._back(found)

    def ends(self, topic: str) -> dict[int, int]:
        return self.inner.ends(topic)

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int]:
        return self.inner.lag(group, topics)

    def close(self) -> None:
        self.inner.close()


class _WrappedSubscription:
    """A subscription of `inner`. Messages that it did not give it reads again: it is sought back to them."""

    def __init__(self, inner: Subscription, log: WrappedLog) -> None:
        self._inner, self._log = inner, log

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Messages in partition order. Raises `LogError` when the first of them cannot be had now; those before one
        that cannot are given."""
        polled = self._inner.poll(timeout_s, max_messages)
        given: list[Message] = []
        num_bytes = 0
        try:
            for message in polled:
                if num_bytes >= _GIVEN_BYTES:
                    break
                given.append(self._log._back(message))
                num_bytes += len(given[-1].value)
        except LogError:
            if not given:
                raise
        finally:
            self._read_again(polled[len(given) :])
        return given

    def _read_again(self, messages: list[Message]) -> None:
        if messages:
            self.seek({(left.topic, left.partition): left.offset for left in reversed(messages)})

    def commit(self, positions: Positions) -> None:
        self._inner.commit(positions)

    def seek(self, positions: Positions) -> None:
        self._inner.seek(positions)

    def assignment(self) -> frozenset[tuple[str, int]]:
        return self._inner.assignment()

    def close(self) -> None:
        self._inner.close()

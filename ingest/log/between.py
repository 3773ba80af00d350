"""Records of a time, without reading all of their topic: each partition is halved until the place is found.

A topic has no index by time that every broker shares. Records of a partition lie nearly in the order of their times,
so what was written within `_SLACK_S` of the time asked for is read, too, and left out by its own time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

from infra.errors import RecordError
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import Topic
from ingest.records import codec
from ingest.records.events import AnyRecord

_SLACK_S = 3600.0


@dataclass(frozen=True)
class Between(Generic[AnyRecord]):
    """Records of `topic` by time: `at` is a record's, in Unix seconds. Joins no group."""

    log: EventLog
    topic: Topic
    kind: type[AnyRecord]
    at: Callable[[AnyRecord], float]

    def read(self, begin: float, end: float) -> Iterator[AnyRecord]:
        """Those of `[begin, end]`, partition by partition; what cannot be read is left out. Raises `LogError`."""
        for part, after in sorted(self.log.ends(self.topic.name).items()):
            place = {(self.topic.name, part): self._first(part, after, begin - _SLACK_S)}
            for message in self.log.replay(self.topic.name, place, (part,)):
                record = self._decoded(message)
                if record is None:
                    continue
                if self.at(record) > end + _SLACK_S:
                    break
                if begin <= self.at(record) <= end:
                    yield record

    def kept_since(self) -> float | None:
        """From when on nothing is gone: the newest of the times at which partitions that lost something begin now.

        None where nothing was ever removed, infinity where a partition has nothing left. Raises `LogError`.
        """
        begins = []
        for part, after in self.log.ends(self.topic.name).items():
            offset, record = next(self._from(part, 0), (after, None))
            if offset > 0:
                begins.append(math.inf if record is None else self.at(record))
        return max(begins, default=None)

    def _first(self, part: int, after: int, begin: float) -> int:
        """The first offset below `after` whose record is of `begin` or later; `after` where there is none."""
        low, high = 0, after
        while low < high:
            middle = (low + high) // 2
            found = self._at_or_behind(part, middle, high)
            if found is None or self.at(found[1]) >= begin:
                high = middle
            else:
                low = found[0] + 1
        return low

    def _at_or_behind(self, part: int, offset: int, end: int) -> tuple[int, AnyRecord] | None:
        """The first readable record from `offset` on, and its own offset; none where there is none below `end`."""
        for found in self._from(part, offset):
            return found if found[0] < end else None
        return None

    def _from(self, part: int, offset: int) -> Iterator[tuple[int, AnyRecord]]:
        if (message := self.log.fetch(self.topic.name, part, offset)) and (record := self._decoded(message)):
            yield offset, record
            return
        for message in self.log.replay(self.topic.name, {(self.topic.name, part): offset}, (part,)):
            if record := self._decoded(message):
                yield message.offset, record

    def _decoded(self, message: Message) -> AnyRecord | None:
        try:
            return codec.decode(message.value, message.headers, self.kind)
        except RecordError:  # its own reader dead-letters or parks it
            return None

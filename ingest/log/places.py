"""Where a message lies, as people and headers name it: `topic/partition@offset`."""

import re
from typing import NamedTuple

from ingest.log.protocol import Message

_FORM = re.compile(r"(?P<topic>[^/@]+)/(?P<partition>[0-9]{1,9})@(?P<offset>[0-9]{1,18})")


class Place(NamedTuple):
    """Where a message lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"

    @classmethod
    def of(cls, message: Message) -> "Place":
        return cls(message.topic, message.partition, message.offset)

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises `ValueError`."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"a place is topic/partition@offset, like traces/0@17, got {text!r:.100}")
        return cls(found["topic"], int(found["partition"]), int(found["offset"]))

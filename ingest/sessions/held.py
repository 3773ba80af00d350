"""A trace while its session is open: as it came, its numbers packed."""

from typing import NamedTuple

from ingest.log.protocol import Message
from ingest.records import prefixes
from ingest.records.events import Prefix, Trace
from ingest.records.made import named_alike


class Held(NamedTuple):
    """A trace as it was stored, where it lay, and what a later trace that leans on it must know.

    `num_tokens` and `num_messages` are the whole trace's. `digest` is its value's.
    """

    trace: Trace
    partition: int
    offset: int
    digest: str
    num_tokens: int
    num_messages: int

    @classmethod
    def of(cls, trace: Trace, message: Message) -> "Held":
        prefix = trace.prefix
        named_alike([trace, trace.assignment, trace.sampling, *trace.spans, *([prefix] if prefix else [])])
        num_tokens = len(trace.prompt_token_ids) + len(trace.token_ids)
        return cls(
            trace,
            message.partition,
            message.offset,
            prefixes.digest(message.value),
            num_tokens + (prefix.num_tokens if prefix else 0),
            prefixes.num_messages(trace) + (prefix.num_messages if prefix else 0),
        )

    def carries(self, prefix: Prefix) -> bool:
        """Whether a trace that leans on this one finds in it what it left out."""
        return (
            prefix.digest == self.digest
            and prefix.num_tokens <= self.num_tokens
            and prefix.num_messages <= self.num_messages
        )

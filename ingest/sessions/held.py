"""A trace while its session is open: as it came, its numbers packed."""

from collections.abc import Mapping
from dataclasses import dataclass

from ingest.log.protocol import Message
from ingest.records import prefixes
from ingest.records.events import Prefix, Trace


@dataclass(frozen=True, slots=True)
class Held:
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


def whole(traces: Mapping[str, Held], name: str, made: dict[str, Trace]) -> Trace:
    """Trace `name` with all that its prefixes left to other traces of the session; `made` keeps those on the way."""
    line = [name]
    while line[-1] not in made and (prefix := traces[line[-1]].trace.prefix) is not None:
        line.append(prefix.parent)
    for step in reversed(line):
        if step not in made:
            trace = traces[step].trace
            made[step] = trace if trace.prefix is None else prefixes.whole(trace, made[trace.prefix.parent])
    return made[name]

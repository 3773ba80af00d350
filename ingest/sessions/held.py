"""A trace while its session is open: as small as it came, numbers in arrays and not in tuples."""

from array import array
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

    rest: Trace
    prompt: "array[int]"
    reply: "array[int]"
    logprobs: "array[float]"
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
            rest=trace.model_copy(update={"prompt_token_ids": (), "token_ids": (), "logprobs": ()}),
            prompt=array("I", trace.prompt_token_ids),
            reply=array("I", trace.token_ids),
            logprobs=array("d", trace.logprobs),
            partition=message.partition,
            offset=message.offset,
            digest=prefixes.digest(message.value),
            num_tokens=num_tokens + (prefix.num_tokens if prefix else 0),
            num_messages=prefixes.num_messages(trace) + (prefix.num_messages if prefix else 0),
        )

    def trace(self) -> Trace:
        """The trace as it was stored."""
        return self.rest.model_copy(
            update={
                "prompt_token_ids": tuple(self.prompt),
                "token_ids": tuple(self.reply),
                "logprobs": tuple(self.logprobs),
            }
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
    while line[-1] not in made and (prefix := traces[line[-1]].rest.prefix) is not None:
        line.append(prefix.parent)
    for step in reversed(line):
        if step not in made:
            trace = traces[step].trace()
            made[step] = trace if trace.prefix is None else prefixes.whole(trace, made[trace.prefix.parent])
    return made[name]

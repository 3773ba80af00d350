"""A trace while its session is open: as it came, its numbers packed, and nothing that nobody will ask for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from operator import itemgetter
from typing import Any, Self

from ingest.log.protocol import Message
from ingest.records import prefixes
from ingest.records.events import Assignment, Consent, Prefix, Trace, TurnKind, VersionSpan
from ingest.records.made import made, named_alike
from ingest.records.packing import Logprobs, TokenIds


@dataclass(eq=False, slots=True)
class Held:
    """A trace as it was stored, where it lay, and what a later trace that leans on it must know.

    Its own fields are those of `Trace`, in slots: a model takes three times the memory, and an attribute of it several
    times as long. `num_tokens` and `num_messages` are the whole trace's. `digest` is its value's.
    """

    partition: int
    offset: int
    digest: str
    trace_id: str
    session_id: str
    parent_session_id: str | None
    tenant: str
    user: str
    consent: Consent
    assignment: Assignment
    kind: TurnKind
    prefix: Prefix | None
    redacted: dict[str, int]
    is_reply_altered: bool
    request: dict[str, Any]
    reply_text: str
    status: int
    prompt_token_ids: TokenIds
    token_ids: TokenIds
    logprobs: Logprobs
    spans: tuple[VersionSpan, ...]
    finish_reason: str
    started_at: float
    finished_at: float
    num_tokens: int = field(init=False)
    num_messages: int = field(init=False)

    def __post_init__(self) -> None:
        prefix = self.prefix
        self.num_tokens = len(self.prompt_token_ids) + len(self.token_ids)
        self.num_messages = prefixes.num_messages(self.request)
        if prefix is not None:
            self.num_tokens += prefix.num_tokens
            self.num_messages += prefix.num_messages

    @classmethod
    def of(cls, trace: Trace, message: Message) -> "Held":
        held = cls(message.partition, message.offset, prefixes.digest(message.value), *_own(trace.__dict__))
        held.spans = _shared(held.spans)
        if held.prefix is not None:
            named_alike((held.prefix,))
        return held

    def carries(self, prefix: Prefix) -> bool:
        """Whether a trace that leans on this one finds in it what it left out."""
        return (
            prefix.digest == self.digest
            and prefix.num_tokens <= self.num_tokens
            and prefix.num_messages <= self.num_messages
        )

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """As of a `Trace`."""
        return replace(self, **update)


def _shared(spans: tuple[VersionSpan, ...]) -> tuple[VersionSpan, ...]:
    """The same; nearly all replies are one span, and of these not many differ."""
    return _span(**spans[0].__dict__) if len(spans) == 1 else spans


@lru_cache(maxsize=4096)
def _span(version: int, start: int, end: int) -> tuple[VersionSpan]:
    return (made(VersionSpan, version=version, start=start, end=end),)


_own = itemgetter(*[one.name for one in fields(Held) if one.name in Trace.model_fields])
AnyTrace = Trace | Held

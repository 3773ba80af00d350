"""A trace while its session is open: as it came, in slots, its numbers packed.

It is read straight from its JSON, by msgspec: to make a `Trace` first, and this of it, takes half as long again. There
is one judge of what a trace is all the same. What this reader takes, `Trace` takes, and reads as the same; of what it
does not take, `Trace` says what is wrong with it.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Self, TypeVar

import msgspec
from msgspec import Meta, Struct, field
from pydantic import BaseModel

from ingest.log.protocol import Message
from ingest.records import codec, prefixes
from ingest.records.events import (
    Assignment,
    Consent,
    Sampling,
    Trace,
    TurnKind,
    VersionSpan,
    check_aligned,
)
from ingest.records.made import named_alike
from ingest.records.packing import Logprobs, Packed, TokenIds

_MAX_OPENED = 150  # brackets: pydantic refuses JSON that is nested deeper than some 200
_Later = Annotated[int, Meta(ge=1, le=0)]  # is put in by us: no number that JSON could bring
_Count = Annotated[int, Meta(ge=0)]
_Named = Annotated[str, Meta(min_length=1, max_length=256)]

Model = TypeVar("Model", bound=BaseModel)


class HeldPrefix(Struct, eq=False, frozen=True, forbid_unknown_fields=True, gc=False):
    """A `Prefix`, in slots."""

    parent: _Named
    digest: str
    num_tokens: _Count
    num_messages: _Count
    same: tuple[str, ...] = ()


class Spans(tuple[VersionSpan, ...]):
    """The spans of a reply."""

    __slots__ = ()


class Held(Struct, eq=False, forbid_unknown_fields=True, kw_only=True):
    """A trace as it was stored, where it lay, and what a later trace that leans on it must know.

    The fields of `Trace`, in slots: a model takes three times the memory, and an attribute of it several times as long.
    `num_tokens` and `num_messages` are the whole trace's. `digest` is its value's.
    """

    trace_id: _Named
    session_id: _Named
    parent_session_id: str | None = None
    tenant: str
    user: str = ""
    consent: Consent = Consent.ASSUMED
    assignment: Assignment
    engine_id: str
    kind: TurnKind
    endpoint: str
    model: str
    prefix: HeldPrefix | None = None
    redacted: dict[str, int] = field(default_factory=dict)
    is_reply_altered: bool = False
    request: dict[str, Any]
    reply_text: str
    streamed: bool
    status: int
    prompt_token_ids: TokenIds
    token_ids: TokenIds
    logprobs: Logprobs
    spans: Spans
    sampling: Sampling
    finish_reason: str
    started_at: float
    finished_at: float

    partition: _Later = 0
    offset: _Later = 0
    digest: Annotated[str, Meta(min_length=1, max_length=0)] = ""
    num_tokens: _Later = 0
    num_messages: _Later = 0

    def __post_init__(self) -> None:
        check_aligned(self.token_ids, self.logprobs, self.spans)
        prefix = self.prefix
        self.num_tokens = len(self.prompt_token_ids) + len(self.token_ids)
        self.num_messages = prefixes.num_messages(self.request)
        if prefix is not None:
            self.num_tokens += prefix.num_tokens
            self.num_messages += prefix.num_messages
        self.tenant, self.user, self.engine_id = _one(self.tenant), _one(self.user), _one(self.engine_id)
        self.endpoint, self.model, self.finish_reason = _one(self.endpoint), _one(self.model), _one(self.finish_reason)

    @classmethod
    def read(cls, message: Message) -> "Held":
        """The trace in a message. Raises as `codec.decode` does."""
        held = codec.decode_by(message.value, message.headers, Trace, _of_json)
        return held._at(message)

    @classmethod
    def of(cls, trace: Trace, message: Message) -> "Held":
        """The same, of one that was decoded already."""
        return _of_trace(trace)._at(message)

    def _at(self, message: Message) -> "Held":
        self.partition, self.offset, self.digest = message.partition, message.offset, prefixes.digest(message.value)
        return self

    def carries(self, prefix: prefixes.AnyPrefix) -> bool:
        """Whether a trace that leans on this one finds in it what it left out."""
        return (
            prefix.digest == self.digest
            and prefix.num_tokens <= self.num_tokens
            and prefix.num_messages <= self.num_messages
        )

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """As of a `Trace`."""
        return msgspec.structs.replace(self, **update)


AnyTrace = Trace | Held


def _of_json(json: bytes) -> Held:
    """Raises what pydantic says of it as a `Trace`."""
    if json.count(b"{") + json.count(b"[") <= _MAX_OPENED:
        try:
            return _decoder.decode(json)
        except ValueError:  # as are the errors of msgspec and of pydantic
            pass
    return _of_trace(Trace.model_validate_json(json))


def _of_trace(trace: Trace) -> Held:
    return Held(**trace.__dict__ | {"spans": _spans([span.__dict__ for span in trace.spans])})


# -- its parts, as pydantic reads them; of equal ones, one object


@lru_cache(maxsize=4096)
def _one(text: str) -> str:
    return text


def _valid(kind: type[Model], given: Any) -> Model:
    value = kind.model_validate(given)
    named_alike((value,))
    return value


def _alike(kind: type[Model]) -> Callable[[Any], Model]:
    """A reader of parts of which most are equal."""

    @lru_cache(maxsize=4096)
    def known(*items: tuple[str, Any]) -> Model:
        return _valid(kind, dict(items))

    def read(given: Any) -> Model:
        try:
            return known(*given.items())
        except (AttributeError, TypeError):  # it is no object, or holds what has no hash
            return _valid(kind, given)

    return read


@lru_cache(maxsize=4096)
def _alone(*items: tuple[str, Any]) -> Spans:
    return Spans((_valid(VersionSpan, dict(items)),))


def _spans(given: Any) -> Spans:
    """Nearly all replies are one span, and of these not many differ."""
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ValueError("a list of objects")
    return _alone(*given[0].items()) if len(given) == 1 else Spans(_valid(VersionSpan, one) for one in given)


def _packed(kind: type[Packed[Any]]) -> Callable[[Any], Packed[Any]]:
    def read(given: Any) -> Packed[Any]:
        if not isinstance(given, str):
            raise ValueError("a string")
        return kind.parse(given)

    return read


_PARTS: dict[type, Callable[[Any], Any]] = {
    Assignment: _alike(Assignment),
    Sampling: _alike(Sampling),
    Spans: _spans,
    TokenIds: _packed(TokenIds),
    Logprobs: _packed(Logprobs),
}
_decoder = msgspec.json.Decoder(Held, dec_hook=lambda kind, given: _PARTS[kind](given))

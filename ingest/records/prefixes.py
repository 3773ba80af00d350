"""Traces without what an earlier trace of their session holds already, and whole again.

A turn's prompt begins with the prompt and the reply of the turn before it, and its request with that turn's messages.
`cut` leaves both out and says in `Trace.prefix` whose they are; `whole` puts them back. A session of n turns costs n
times what its turns say, and not n squared.

`Prefix.digest` is that of the parent's value, byte for byte as it was written. A parent holds its own parent's digest,
so one comparison for each step proves the whole line.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from infra.errors import RecordError
from ingest.records.events import Prefix, Trace
from ingest.records.packing import TokenIds

_IN_ORDER = ("messages", "input")
LISTS = frozenset(_IN_ORDER)
"""Fields of a request that hold its messages, as a list."""


class AnyPrefix(Protocol):
    """A `Prefix`, or what is kept of one."""

    @property
    def parent(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def num_messages(self) -> int: ...
    @property
    def same(self) -> tuple[str, ...]: ...


class Leaning(Protocol):
    """A trace as it is stored, or what is kept of one."""

    @property
    def trace_id(self) -> str: ...
    @property
    def prefix(self) -> AnyPrefix | None: ...
    @property
    def request(self) -> dict[str, Any]: ...
    @property
    def prompt_token_ids(self) -> TokenIds: ...
    @property
    def token_ids(self) -> TokenIds: ...
    @property
    def redacted(self) -> dict[str, int]: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...


T = TypeVar("T", bound=Leaning)


@dataclass(frozen=True)
class Outline:
    """What has to be known of a whole trace to cut it by another, and another by it.

    `messages` and `fields` are digests, of each message of its
    request and of each of its other fields.
    """

    trace_id: str
    prompt: TokenIds
    reply: TokenIds
    messages: tuple[bytes, ...]
    fields: Mapping[str, bytes]

    @classmethod
    def of(cls, trace: Trace) -> "Outline":
        name = list_in(trace.request)
        return cls(
            trace.trace_id,
            trace.prompt_token_ids,
            trace.token_ids,
            tuple(map(_mark, trace.request[name])) if name else (),
            {key: _mark(given) for key, given in trace.request.items() if key != name and _is_worth(given)},
        )

    @property
    def num_bytes(self) -> int:
        """About what it takes in memory."""
        return 600 + 4 * (len(self.prompt) + len(self.reply)) + 64 * len(self.messages) + 150 * len(self.fields)

    def num_tokens_in(self, prompt: TokenIds) -> int:
        """How many tokens at the head of `prompt` are those of this trace's prompt and reply."""
        return prompt.num_common(self.prompt + self.reply)


def digest(value: bytes) -> str:
    """What `Prefix.digest` says of a parent's value."""
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def cut(trace: Trace, outline: Outline, parent: Outline, parent_digest: str, num_tokens: int) -> Trace:
    """A whole trace without what `parent` has; `num_tokens` of its prompt are known to be the parent's."""
    name = list_in(trace.request)
    num_messages = _num_same(outline.messages, parent.messages)
    same = tuple(key for key, mark in outline.fields.items() if parent.fields.get(key) == mark)
    request = {key: given for key, given in trace.request.items() if key not in same}
    if name:
        request[name] = request[name][num_messages:]
    prefix = Prefix(
        parent=parent.trace_id, digest=parent_digest, num_tokens=num_tokens, num_messages=num_messages, same=same
    )
    return trace.model_copy(
        update={"prefix": prefix, "request": request, "prompt_token_ids": trace.prompt_token_ids[num_tokens:]}
    )


def whole(trace: T, parent: Leaning) -> T:
    """`trace` with what its `prefix` left to `parent`, a whole trace.

    Raises:
        RecordError: the parent has less than the prefix says.
    """
    prefix = trace.prefix
    assert prefix is not None
    name, held = list_in(trace.request), list_in(parent.request)
    tokens = parent.prompt_token_ids + parent.token_ids
    if len(tokens) > prefix.num_tokens:
        tokens = tokens[: prefix.num_tokens]
    messages = parent.request[held][: prefix.num_messages] if held else []
    if len(tokens) < prefix.num_tokens or len(messages) < prefix.num_messages:
        raise RecordError(
            f"trace {trace.trace_id}: takes {prefix.num_tokens} tokens and {prefix.num_messages} messages from trace "
            f"{prefix.parent}, which has {len(tokens)} and {len(messages)}"
        )
    request = dict(trace.request)
    for key in prefix.same:
        request[key] = parent.request.get(key)
    if name:
        request[name] = messages + request[name]
    return trace.model_copy(
        update={
            "prefix": None,
            "request": request,
            "prompt_token_ids": tokens + trace.prompt_token_ids,
            "redacted": redacted_in(trace.redacted, parent.redacted),
        }
    )


def redacted_in(own: Mapping[str, int], parents: Mapping[str, int]) -> Mapping[str, int]:
    """What was replaced in a whole trace, by kind: in what it stores, and in its whole parent."""
    return dict(Counter(parents) + Counter(own)) if parents else own


class Wholes(Generic[T]):
    """Stored traces of a session made whole, each once. `traces` has, by id, those that they lean on."""

    def __init__(self, traces: Mapping[str, T]) -> None:
        self._traces = traces
        self._made: dict[str, T] = {}

    def whole(self, trace: T) -> T:
        """`trace` with all that its prefixes left to others. Raises `RecordError` as `whole` does."""
        line = [trace]
        while line[-1].trace_id not in self._made and (prefix := line[-1].prefix) is not None:
            line.append(self._traces[prefix.parent])
        found = self._made.get(line[-1].trace_id, line[-1])
        for step in reversed(line[:-1]):
            found = self._made[step.trace_id] = whole(step, found)
        return found


def num_messages(request: Mapping[str, Any]) -> int:
    """How many messages a request has, as it is stored."""
    name = list_in(request)
    return len(request[name]) if name else 0


def list_in(request: Mapping[str, Any]) -> str | None:
    """The field of a request that holds its messages as a list, if it has one."""
    for name in _IN_ORDER:
        if isinstance(request.get(name), list):
            return name
    return None


def _mark(value: Any) -> bytes:
    return hashlib.blake2b(_text(value).encode(errors="surrogatepass"), digest_size=16).digest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _is_worth(value: Any) -> bool:
    """A number or a word costs less than to say that it is the same."""
    return isinstance(value, list | dict | str) and len(_text(value)) > 32


def _num_same(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

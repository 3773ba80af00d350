"""Sessions as they are stored and delivered: traces that lean on earlier ones, some lost, late, twice or out of order.

Requests take the shapes that clients use, and some that none should: what is read of them must be the same whether a
trace leans on another or is whole.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_sessions import AGENTIC, ORDINARY, Session, Step, play

from ingest.log.protocol import Message
from ingest.records import codec, prefixes
from ingest.records.events import Trace
from ingest.records.prefixes import Outline

TOOLS = [{"type": "function", "function": {"name": "read", "description": "Read a file of the checkout."}}]
RESULTS = [{"type": "tool_result", "content": text, "tool_use_id": text} for text in ("one", "other")]
BRANCHING: tuple[Step, ...] = (Session.regenerate, Session.edit, Session.speak, Session.side)
PLAIN: tuple[Step, ...] = (Session.speak, Session.use_tool)


@dataclass(frozen=True)
class Stored:
    """A session's traces whole, and the messages in which they arrive, as they were stored."""

    wholes: dict[str, Trace]
    messages: list[Message]


def stored(seed: int, length: int) -> Stored:
    """A session of about `length` steps."""
    rng = random.Random(seed)
    session = play(seed, rng.choice((AGENTIC, ORDINARY, BRANCHING, PLAIN)), length)
    list_in = rng.choice(("messages", "messages", "input"))
    wholes = [_varied(rng, trace, list_in) for trace in session.traces]
    values: dict[str, tuple[bytes, dict[str, str]]] = {}
    for number, trace in enumerate(wholes):
        leans = number > 0 and rng.random() < 0.9
        parent = _parent(rng, trace, wholes[:number]) if leans else None
        kept = trace if parent is None else _cut(rng, trace, parent, prefixes.digest(values[parent.trace_id][0]))
        values[trace.trace_id] = codec.encode(kept)
    delivered = _delivered(rng, list(values.values()))
    messages = [Message("traces", 0, offset, "key", *one) for offset, one in enumerate(delivered)]
    return Stored({trace.trace_id: trace for trace in wholes}, messages)


def _varied(rng: random.Random, trace: Trace, list_in: str) -> Trace:
    changes: dict[str, Any] = {"request": _request(rng, list(trace.request["messages"]), list_in)}
    if rng.random() < 0.15:
        changes["redacted"] = rng.choice(({"email": 1}, {"email": 0}, {"card": 2, "email": 1}))
    if rng.random() < 0.05:
        changes |= {"token_ids": (), "logprobs": (), "spans": (), "reply_text": ""}
    if rng.random() < 0.1:  # a clock that was set back
        changes["started_at"] = changes["finished_at"] = trace.started_at - rng.choice((1.0, 5.0, 9.0))
    return Trace.model_validate(trace.model_copy(update=changes).model_dump())


def _request(rng: random.Random, messages: list[Any], list_in: str) -> dict[str, Any]:
    if rng.random() < 0.1:  # one entry that is two messages
        messages.insert(-1, {"role": "user", "content": RESULTS})
    if rng.random() < 0.03:
        messages.insert(0, "no message")
    odd: tuple[dict[str, Any], ...] = (
        {"prompt": "p" * 50},
        {"messages": "m" * 50, "input": messages},
        {"messages": messages, "input": "i" * 50},
    )
    request: dict[str, Any] = dict(rng.choice(odd)) if rng.random() < 0.1 else {list_in: messages}
    if rng.random() < 0.7:
        request["tools"] = TOOLS
    if rng.random() < 0.05:
        request["previous_response_id"] = "r" * 40
    return request


def _parent(rng: random.Random, trace: Trace, earlier: Sequence[Trace]) -> Trace:
    how = rng.random()
    if how < 0.5:
        return earlier[-1]
    if how < 0.7:
        return rng.choice(earlier)
    return max(earlier, key=lambda one: Outline.of(one).num_tokens_in(trace.prompt_token_ids))


def _cut(rng: random.Random, trace: Trace, parent: Trace, digest: str) -> Trace:
    """`trace` as it leans on `parent`, on all that both have or less."""
    outline, elder = Outline.of(trace), Outline.of(parent)
    most = elder.num_tokens_in(outline.prompt)
    num_tokens = rng.randint(0, most) if rng.random() < 0.15 else most
    return prefixes.cut(trace, outline, elder, digest, num_tokens)


def _delivered(rng: random.Random, values: list[Any]) -> list[Any]:
    if rng.random() < 0.3:  # twice
        at = rng.randrange(len(values))
        values.insert(at + rng.randint(0, len(values) - at), values[at])
    if rng.random() < 0.2:  # late, or never where others lean on it
        values.append(values.pop(rng.randrange(len(values))))
    if rng.random() < 0.2 and len(values) > 1:  # lost
        del values[rng.randrange(len(values))]
    return values

"""What a scorer may read of a session's traces: one `Turn` each, with the message before and the message after.

A request is taken as its client sent it: `messages` (chat), `input` (responses) or `prompt` (completions); message
contents may be text or a list of typed parts. Unknown shapes read as empty text: a strange request is still a turn.
"""

from collections.abc import Sequence
from typing import Any

from ingest.sessions.chains import in_order
from ingest.events import Trace, Turn, TurnKind, versions_of


def build(traces: Sequence[Trace]) -> tuple[Turn, ...]:
    """A turn per trace, in the order they began."""
    ordered = in_order(traces)
    followups = _followups([trace for trace in ordered if trace.kind is TurnKind.MAIN])
    return tuple(_turn(trace, followups.get(trace.trace_id)) for trace in ordered)


def _turn(trace: Trace, followup: str | None) -> Turn:
    return Turn(
        trace_id=trace.trace_id,
        kind=trace.kind,
        context=context_of(trace.request),
        reply=trace.reply_text,
        followup=followup,
        finish_reason=trace.finish_reason,
        status=trace.status,
        num_tokens=len(trace.token_ids),
        versions=versions_of(trace.spans),
        at=trace.finished_at,
    )


def context_of(request: dict[str, Any]) -> str:
    """Text of a request's last message, or its prompt."""
    messages = _messages(request)
    if messages:
        return _text(messages[-1].get("content"))
    prompt = request.get("prompt", request.get("input"))
    if isinstance(prompt, list):
        return "\n".join(part for part in prompt if isinstance(part, str))
    return prompt if isinstance(prompt, str) else ""


def _messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    messages = request.get("messages", request.get("input"))
    if not isinstance(messages, list):
        return []
    return [message for message in messages if isinstance(message, dict)]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _followups(ordered: Sequence[Trace]) -> dict[str, str]:
    """Trace id -> the user's next words, for turns that a later one goes on from. The first to go on counts."""
    found: dict[str, str] = {}
    for index, trace in enumerate(ordered):
        messages = _messages(trace.request)
        parent = _parent(ordered[:index], messages)
        if parent is None:
            continue
        said = messages[len(_messages(parent.request)) + 1 :]
        words = [_text(message.get("content")) for message in said if message.get("role") == "user"]
        if words:
            found.setdefault(parent.trace_id, words[-1])
    return found


def _parent(earlier: Sequence[Trace], messages: list[dict[str, Any]]) -> Trace | None:
    """The turn whose conversation `messages` extend: the newest one whose reply they quote, else the newest.

    Quoting decides between a turn and its regeneration, which have the same messages; clients that trim or rewrite
    replies quote none.
    """
    newest: Trace | None = None
    for trace in reversed(earlier):
        before = _messages(trace.request)
        if not before or len(messages) <= len(before) or messages[: len(before)] != before:
            continue
        quoted = messages[len(before)]
        if quoted.get("role") != "assistant":
            continue
        if _text(quoted.get("content")).strip() == trace.reply_text.strip():
            return trace
        newest = newest or trace
    return newest

"""What a scorer may read of a session's traces: one `Turn` each, with the message before and the message after."""

from collections.abc import Mapping

from ingest.records.events import LinkKind, Turn, TurnKind, versions_of
from ingest.records.made import made
from ingest.sessions.messages import USER, tools_of
from ingest.sessions.readings import Reading

_MAIN, _REWRITE = TurnKind.MAIN, LinkKind.REWRITE


def build(readings: Mapping[str, Reading], offsets: Mapping[str, int]) -> tuple[Turn, ...]:
    """A turn per trace, in the order they began; `offsets` tell where the traces lie."""
    followups = _followups(readings)
    return tuple([_turn(one, readings, followups.get(name), offsets.get(name)) for name, one in readings.items()])


def _turn(reading: Reading, readings: Mapping[str, Reading], followup: str | None, offset: int | None) -> Turn:
    trace = reading.trace
    return made(
        Turn,
        trace_id=trace.trace_id,
        offset=offset,
        kind=reading.kind,
        is_altered=bool(reading.read.redacted),
        is_reply_altered=trace.is_reply_altered,
        parent=reading.parent,
        messages=reading.new_messages,
        tool_calls=reading.tool_calls,
        tools=_tools(reading, readings.get(reading.parent or "")),
        context=reading.asked,
        reply=trace.reply_text,
        followup=followup,
        finish_reason=trace.finish_reason,
        status=trace.status,
        num_tokens=len(trace.token_ids),
        versions=versions_of(trace.spans),
        at=trace.finished_at,
        took_s=trace.finished_at - trace.started_at,
    )


def _tools(reading: Reading, parent: Reading | None) -> str:
    given = reading.read.request.get("tools")
    before = parent.read.request.get("tools") if parent is not None else None
    if given is before:
        return ""
    tools = tools_of(given)
    return "" if tools == tools_of(before) else tools


def _followups(readings: Mapping[str, Reading]) -> dict[str, str]:
    """Trace id -> the user's next words, for turns that a later one goes on from. The first to go on counts."""
    found: dict[str, str] = {}
    for reading in readings.values():
        before = _before(reading)
        if before and before not in found and reading.trace.kind is _MAIN:
            words = [message.text for message in reading.new_messages if message.role == USER]
            if words:
                found[before] = words[-1]
    return found


def _before(reading: Reading) -> str | None:
    if reading.parent is None and reading.joint is not None and reading.joint.kind is _REWRITE:
        return reading.joint.trace_id
    return reading.parent

"""What the components read of a trajectory: the summary, what it replaces, and what came after the cut."""

import json
from collections.abc import Iterator

from ingest.records.events import ChatMessage, Trajectory, Turn
from ingest.sessions import history
from ingest.sessions.history import Compaction
from ingest.sessions.messages import PREAMBLE, key_of, without_thinking


def text_of(summary: Turn) -> str:
    """What a summary turn said, without its thinking."""
    return without_thinking(summary.reply).strip()


def claims_of(summary: Turn) -> str:
    """The same as it is read for facts: a tool call that it quotes is what the call was given."""
    return said(history.reply_of(summary))


def replaced(trajectory: Trajectory, summary: Turn) -> tuple[ChatMessage, ...]:
    """The messages that a summary replaces: its context without the preamble and the request to summarise."""
    asked = history.messages_of(trajectory, summary.trace_id)[:-1]
    return tuple(message for message in asked if message.role not in PREAMBLE)


def cuts(trajectory: Trajectory, summary: Turn) -> list[Compaction]:
    """The compactions that a summary joins: several where several contexts go on from it."""
    return [cut for cut in history.compactions(trajectory) if cut.summary.trace_id == summary.trace_id]


def after(cut: Compaction) -> Iterator[ChatMessage]:
    """What was said after a cut, without what the new context began with."""
    for turn in cut.later:
        yield from turn.messages[cut.message + 1 :] if turn is cut.first else turn.messages
        yield history.reply_of(turn)


def said(message: ChatMessage) -> str:
    """A message's text without thinking and markup, and each of its tool calls on a line."""
    _, text, calls = key_of(message)
    return "\n".join([text, *(f"{name} {_given(arguments)}" for name, arguments in calls)])


def _given(arguments: str) -> str:
    """Arguments as words: `path: config/server.toml`."""
    try:
        given = json.loads(arguments)
    except ValueError:
        return arguments
    if not isinstance(given, dict):
        return str(given)
    return ", ".join(f"{name}: {value}" for name, value in given.items())

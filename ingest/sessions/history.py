"""What a turn's context was, put together from a trajectory in which nothing is stored twice.

A turn holds the messages that its parent's request and reply do not; a whole request is found by walking up. Pure, and
read by scorers, by `onstream session` and by whoever shows a conversation to people.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ingest.records.events import ChatMessage, LinkKind, Trajectory, Turn

ASSISTANT = "assistant"


@dataclass(frozen=True)
class Compaction:
    """A context that was reset and goes on from a summary.

    `summary` wrote it, in chain number `before`; `first` is the first turn of chain number `after`, whose request
    quotes it in message number `message`; `later` are `first` and all turns that go on from it, in the order they
    began. `coverage` is the share of the summary that is quoted.
    """

    summary: Turn
    before: int
    after: int
    first: Turn
    message: int
    later: tuple[Turn, ...]
    coverage: float


def turns_by_id(trajectory: Trajectory) -> dict[str, Turn]:
    """Every turn by its trace id."""
    return {turn.trace_id: turn for turn in trajectory.turns}


def ancestry(trajectory: Trajectory, trace_id: str) -> tuple[Turn, ...]:
    """A turn and those it goes on from, eldest first. Ends where a context begins: at a compaction, too."""
    known = turns_by_id(trajectory)
    line: list[Turn] = []
    turn = known.get(trace_id)
    while turn is not None and turn not in line:
        line.append(turn)
        turn = known.get(turn.parent) if turn.parent else None
    return tuple(reversed(line))


def messages_of(trajectory: Trajectory, trace_id: str) -> tuple[ChatMessage, ...]:
    """All messages of a turn's request; the replies in it as `assistant` messages."""
    *elders, turn = ancestry(trajectory, trace_id)
    found: list[ChatMessage] = []
    for elder in elders:
        found += [*elder.messages, reply_of(elder)]
    return (*found, *turn.messages)


def reply_of(turn: Turn) -> ChatMessage:
    """A turn's reply as a message."""
    return ChatMessage(role=ASSISTANT, text=turn.reply, tool_calls=turn.tool_calls)


def tools_of(trajectory: Trajectory, trace_id: str) -> str:
    """JSON text of the tools that a turn's request offered, or empty."""
    return next((turn.tools for turn in reversed(ancestry(trajectory, trace_id)) if turn.tools), "")


def compactions(trajectory: Trajectory) -> tuple[Compaction, ...]:
    """Every compaction of a session, in the order the contexts after it began."""
    return tuple(_compactions(trajectory))


def _compactions(trajectory: Trajectory) -> Iterator[Compaction]:
    known = turns_by_id(trajectory)
    for number, chain in enumerate(trajectory.chains):
        link = chain.link
        if link is None or link.kind is not LinkKind.COMPACTION or link.message is None:
            continue
        first = known[chain.segments[0].trace_id]
        later = tuple(
            turn
            for turn in trajectory.turns
            if any(elder.trace_id == first.trace_id for elder in ancestry(trajectory, turn.trace_id))
        )
        yield Compaction(known[link.trace_id], link.before, number, first, link.message, later, link.coverage)
